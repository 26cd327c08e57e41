# METADATA
# title: Hours of the week
package mcp.platform.calendar

# METADATA
# title: The moment lies within the hours
# description: >-
#   Hours are `{days, from, to, timezone}`: English names of days, HH:MM, an IANA name. `from` is within, `to` is not; 24:00 is
#   the end of the day. Hours that cross midnight are two entries. Hours that are not of this form contain no moment.
during(hours, time_ns) if {
	regex.match(`^([01][0-9]|2[0-3]):[0-5][0-9]$`, hours.from)
	regex.match(`^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$`, hours.to)
	time.weekday([time_ns, hours.timezone]) in hours.days
	clock := time.clock([time_ns, hours.timezone])
	now := sprintf("%02d:%02d", [clock[0], clock[1]])
	hours.from <= now
	now < hours.to
}
