"""For people who write policies: check, test, explain and show a policy folder with the very OPA that decides."""
