{{- define "sidecar.name" -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "sidecar.labels" -}}
{{ include "sidecar.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "sidecar.selector" -}}
app.kubernetes.io/name: mcp-sidecar
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: sidecar
{{- end }}

{{- define "sidecar.serverSelector" -}}
app.kubernetes.io/name: mcp-sidecar
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: server
mcp-sidecar/server: {{ .server.name }}
{{- end }}

{{- define "sidecar.image" -}}
{{- $image := .Values.image }}
{{- if $image.digest }}{{ $image.repository }}@{{ $image.digest }}
{{- else }}{{ $image.repository }}:{{ $image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{- define "sidecar.podSecurity" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "sidecar.security" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "sidecar.scheduling" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Where a server listens that has a container of its own beside the sidecar. */}}
{{- define "sidecar.serverPort" -}}
{{- $port := 3000 }}
{{- range $index, $server := .root.Values.servers }}
{{- if eq $server.name $.server.name }}{{ add $port $index }}{{ end }}
{{- end }}
{{- end }}

{{- define "sidecar.serverUrl" -}}
{{- $run := .server.run | default "child" }}
{{- if eq $run "container" }}http://127.0.0.1:{{ include "sidecar.serverPort" . }}/mcp
{{- else if eq $run "deployment" }}http://{{ include "sidecar.name" .root }}-{{ .server.name }}:3000/mcp
{{- else if eq $run "elsewhere" }}{{ .server.url }}{{ end }}
{{- end }}

{{/* SIDECAR_SERVERS, as the settings of docs/reference/settings.md. */}}
{{- define "sidecar.servers" -}}
{{- $root := . }}
{{- $all := list }}
{{- range .Values.servers }}
{{- $run := .run | default "child" }}
{{- $server := dict "name" .name "read_only" (ne .readOnly false) }}
{{- $folder := printf "/run/secrets/mcp-sidecar/servers/%s" .name }}
{{- if eq $run "child" }}
{{- $_ := set $server "command" (list "mongodb-mcp-server") }}
{{- $_ := set $server "connection_string_file" (printf "%s/connection-string" $folder) }}
{{- if .environmentFile }}{{ $_ := set $server "environment_file" (printf "%s/environment" $folder) }}{{ end }}
{{- else }}
{{- $_ := set $server "url" (include "sidecar.serverUrl" (dict "root" $root "server" .)) }}
{{- if .headers }}{{ $_ := set $server "headers_file" (printf "%s/headers" $folder) }}{{ end }}
{{- end }}
{{- if .views }}{{ $_ := set $server "views_connection_string_file" (printf "%s/views" $folder) }}{{ end }}
{{- $all = append $all (merge $server (.settings | default dict)) }}
{{- end }}
{{- toJson $all }}
{{- end }}

{{/* The whole environment of the sidecar. What the chart decides wins over `settings`. */}}
{{- define "sidecar.environment" -}}
{{- $values := .Values }}
{{- $env := dict }}
{{- range $name, $value := $values.settings }}
{{- if kindIs "map" $value }}
{{- range $key, $inner := $value }}
{{- $_ := set $env (printf "SIDECAR_%s__%s" (upper $name) (upper $key)) (kindIs "string" $inner | ternary $inner (toJson $inner)) }}
{{- end }}
{{- else }}
{{- $_ := set $env (printf "SIDECAR_%s" (upper $name)) (kindIs "string" $value | ternary $value (toJson $value)) }}
{{- end }}
{{- end }}
{{- $_ := set $env "SIDECAR_RESOURCE_URL" $values.resourceUrl }}
{{- $_ := set $env "SIDECAR_LISTEN" (printf "%s:8080" $values.podAddress) }}
{{- $_ := set $env "SIDECAR_ADMIN_LISTEN" (printf "%s:8081" $values.podAddress) }}
{{- $_ := set $env "SIDECAR_TLS_ENDED_BY" "proxy" }}
{{- $_ := set $env "SIDECAR_ISSUERS" (toJson $values.issuers) }}
{{- $_ := set $env "SIDECAR_SERVERS" (include "sidecar.servers" .) }}
{{- $_ := set $env "SIDECAR_AUDIT__STORE" "file:/var/lib/sidecar/audit.jsonl" }}
{{- with $values.insecureConnections }}{{ $_ := set $env "SIDECAR_INSECURE_CONNECTIONS" (toJson .) }}{{ end }}
{{- with $values.audit.signingKey.secret }}{{ $_ := set $env "SIDECAR_AUDIT__SIGNING_KEY_FILE" "/run/secrets/mcp-sidecar/own/audit-key" }}{{ end }}
{{- with $values.shared.sessionKeys.secret }}{{ $_ := set $env "SIDECAR_SESSION_KEYS_FILE" "/run/secrets/mcp-sidecar/own/session-keys" }}{{ end }}
{{- with $values.shared.nonceKey.secret }}{{ $_ := set $env "SIDECAR_DPOP_NONCE_KEY_FILE" "/run/secrets/mcp-sidecar/own/nonce-key" }}{{ end }}
{{- with $values.shared.store.secret }}
{{- $_ := set $env "SIDECAR_MONGODB__URI_FILE" "/run/secrets/mcp-sidecar/own/store" }}
{{- $_ := set $env "SIDECAR_MONGODB__USAGE" "usage" }}
{{- $_ := set $env "SIDECAR_SINGLE_USE" "mongodb:marks" }}
{{- $_ := set $env "SIDECAR_SUSPENSIONS" "mongodb:suspensions" }}
{{- $_ := set $env "SIDECAR_CONTROL_LISTEN" "unix:/run/control/control" }}
{{- if $values.shared.sessionKeys.secret }}{{ $_ := set $env "SIDECAR_SESSIONS__ENDED" "mongodb:ended" }}{{ end }}
{{- end }}
{{- if $values.tls.secret }}
{{- $_ := set $env "SIDECAR_TLS__CERTIFICATE_FILE" "/run/secrets/mcp-sidecar/tls/tls.crt" }}
{{- $_ := set $env "SIDECAR_TLS__KEY_FILE" "/run/secrets/mcp-sidecar/tls/tls.key" }}
{{- if ne $values.tls.clientCertificates "off" }}
{{- $_ := set $env "SIDECAR_TLS__CLIENT_CERTIFICATES" $values.tls.clientCertificates }}
{{- $_ := set $env "SIDECAR_TLS__CLIENT_CA_FILE" "/run/secrets/mcp-sidecar/tls/clients.crt" }}
{{- end }}
{{- end }}
{{- if eq $values.opa.mode "managed" }}
{{- $_ := set $env "SIDECAR_POLICIES" "/policies" }}
{{- else if eq $values.opa.mode "bundles" }}
{{- $_ := set $env "SIDECAR_OPA__URL" "http://127.0.0.1:8181" }}
{{- else }}
{{- $_ := set $env "SIDECAR_OPA__URL" $values.opa.url }}
{{- with $values.opa.ca.secret }}{{ $_ := set $env "SIDECAR_OPA__CA_FILE" "/run/secrets/mcp-sidecar/own/opa-ca" }}{{ end }}
{{- with $values.opa.token.secret }}{{ $_ := set $env "SIDECAR_OPA__TOKEN_FILE" "/run/secrets/mcp-sidecar/own/opa-token" }}{{ end }}
{{- end }}
{{- with $values.traces.endpoint }}
{{- $_ := set $env "OTEL_EXPORTER_OTLP_ENDPOINT" . }}
{{- $_ := set $env "OTEL_SERVICE_NAME" "mcp-sidecar" }}
{{- end }}
- name: POD_IP
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
{{- range $name, $value := $env }}
- name: {{ $name }}
  value: {{ has $name (list "SIDECAR_LISTEN" "SIDECAR_ADMIN_LISTEN") | ternary $value (replace "$(" "$$(" $value) | quote }}
{{- end }}
{{- end }}

{{/* One source of a projected volume: a key of a Secret as a file. */}}
{{- define "sidecar.source" -}}
- secret: {name: {{ .from.secret }}, items: [{key: {{ .from.key }}, path: {{ .path }}}]}
{{- end }}

{{- define "sidecar.ownSecrets" -}}
{{- range $path, $from := dict
  "session-keys" .Values.shared.sessionKeys
  "nonce-key" .Values.shared.nonceKey
  "store" .Values.shared.store
  "audit-key" .Values.audit.signingKey
  "opa-ca" (eq .Values.opa.mode "external" | ternary .Values.opa.ca dict)
  "opa-token" (eq .Values.opa.mode "external" | ternary .Values.opa.token dict) }}
{{- if $from.secret }}
{{ include "sidecar.source" (dict "from" $from "path" $path) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "sidecar.serverSecrets" -}}
{{- range $server := .Values.servers }}
{{- $run := $server.run | default "child" }}
{{- $child := eq $run "child" }}
{{- $files := dict
  "connection-string" ($child | ternary $server.connectionString dict)
  "environment" ($child | ternary ($server.environmentFile | default dict) dict)
  "headers" ($child | ternary dict ($server.headers | default dict))
  "views" ($server.views | default dict) }}
{{- range $file, $from := $files }}
{{- if $from.secret }}
{{ include "sidecar.source" (dict "from" $from "path" (printf "%s/%s" $server.name $file)) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* A MongoDB MCP server that is reached by HTTP: what the sidecar would start as a child, with a port. */}}
{{- define "sidecar.serverContainer" -}}
image: {{ .root.Values.serverImage | default (include "sidecar.image" .root) }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
command: [mongodb-mcp-server]
env:
  - {name: HOME, value: /tmp}
  - {name: NODE_ENV, value: production}
  - {name: DO_NOT_TRACK, value: "1"}
  - {name: MDB_MCP_TELEMETRY, value: disabled}
  - {name: MDB_MCP_LOGGERS, value: stderr}
  - {name: MDB_MCP_TRANSPORT, value: http}
  - {name: MDB_MCP_HTTP_HOST, value: {{ .host | quote }}}
  - {name: MDB_MCP_HTTP_PORT, value: {{ .port | quote }}}
{{- if ne .host "127.0.0.1" }}
  # Only the sidecar's pods reach it (NetworkPolicy), and only with the shared secret.
  - {name: MDB_MCP_DANGEROUS_HOST_BINDING, value: "true"}
{{- end }}
  - {name: MDB_MCP_HTTP_BODY_LIMIT, value: "1048576"}
  - {name: MDB_MCP_READ_ONLY, value: {{ ne .server.readOnly false | quote }}}
  - {name: MDB_MCP_DISABLE_SERVER_SIDE_JS, value: "true"}
  - {name: MDB_MCP_ALLOW_REQUEST_OVERRIDES, value: "false"}
  - {name: MDB_MCP_DISABLED_TOOLS, value: "export,connect,atlas,atlas-local,assistant"}
  - name: MDB_MCP_CONNECTION_STRING
    valueFrom: {secretKeyRef: {name: {{ .server.connectionString.secret }}, key: {{ .server.connectionString.key }}}}
  - name: MDB_MCP_HTTP_HEADERS
    valueFrom: {secretKeyRef: {name: {{ .server.headers.secret }}, key: {{ .server.headers.jsonKey }}}}
securityContext: {{- include "sidecar.security" . | nindent 2 }}
resources: {{- toYaml .root.Values.serverResources | nindent 2 }}
volumeMounts:
  - {name: tmp, mountPath: /tmp, subPath: {{ .server.name }}}
{{- end }}
