{{/* Settings of all processes, as a mapping; nothing secret. */}}
{{- define "shield.config" -}}
{{- $name := include "shield.fullname" . -}}
{{- $hosts := list -}}
{{- range $service := list (printf "%s-api" $name) (printf "%s-mcp" $name) (printf "%s-mcp-canary" $name) (printf "%s-mcp-primary" $name) -}}
{{- $base := printf "%s.%s" $service $.Release.Namespace -}}
{{- $hosts = concat $hosts (list $service $base (printf "%s.svc" $base) (printf "%s.svc.%s" $base $.Values.clusterDomain)) -}}
{{- end -}}
{{- $hosts = concat $hosts .Values.allowedHosts .Values.gateway.hostnames .Values.ingress.hostnames | uniq -}}
{{- /* Turns and lag: clients of MCP repeat no call, so a moment without processor (pods that start beside) had better be waited out than refused. */ -}}
{{- $data := dict
  "SHIELD_HOST" "0.0.0.0"
  "SHIELD_LOG_FORMAT" "json"
  "SHIELD_LOG_LEVEL" .Values.logLevel
  "SHIELD_AUTH_MODE" .Values.auth.mode
  "SHIELD_API_DRAIN" "60"
  "SHIELD_API_TURN" "3"
  "SHIELD_API_MAX_LAG" "3"
  "SHIELD_ALLOWED_HOSTS" (join "," $hosts)
  "SHIELD_QDRANT_URL" (include "shield.qdrantUrl" .)
  "SHIELD_QDRANT_REPLICAS" (.Values.external.qdrant.replicas | toString)
  "SHIELD_POSTGRES_SCHEMA_WAIT" (.Values.migration.waitSeconds | int | toString)
  "SHIELD_LLM_PROVIDER" .Values.llm.provider
  "SHIELD_EMBEDDING_PROVIDER" .Values.embedding.provider
  "SHIELD_EMBEDDING_MODEL" .Values.embedding.model
  "SHIELD_EMBEDDING_DIM" (.Values.embedding.dimension | int | toString)
  "SHIELD_JOBS_RETENTION" (mul (.Values.retention.jobsDays | int) 86400 | toString)
  "SHIELD_JOBS_IDEMPOTENCY_KEEP" (mul (.Values.retention.idempotencyDays | int) 86400 | toString)
  "SHIELD_FILE_UPLOAD_TTL" (mul (.Values.retention.uploadsHours | int) 3600 | toString)
  "SHIELD_LIBRARY_CACHE_KEEP" (mul (.Values.retention.cacheDays | int) 86400 | toString)
  "SHIELD_EGRESS_PORTS" (join "," .Values.egress.ports)
-}}
{{- if eq .Values.auth.mode "none" }}{{ $_ := set $data "SHIELD_AUTH_ALLOW_OPEN" "true" }}{{ end -}}
{{- with .Values.publicUrl }}{{ $_ := set $data "SHIELD_PUBLIC_URL" . }}{{ end -}}
{{- with .Values.allowedOrigins }}{{ $_ := set $data "SHIELD_ALLOWED_ORIGINS" (join "," .) }}{{ end -}}
{{- with .Values.auth.oidc.issuer }}{{ $_ := set $data "SHIELD_AUTH_ISSUER" . }}{{ end -}}
{{- with .Values.auth.oidc.audience }}{{ $_ := set $data "SHIELD_AUTH_AUDIENCE" (join "," .) }}{{ end -}}
{{- with .Values.llm.baseUrl }}{{ $_ := set $data "SHIELD_LLM_BASE_URL" . }}{{ end -}}
{{- with .Values.llm.model }}{{ $_ := set $data "SHIELD_LLM_MODEL" . }}{{ end -}}
{{- with .Values.embedding.baseUrl }}{{ $_ := set $data "SHIELD_EMBEDDING_BASE_URL" . }}{{ end -}}
{{- with .Values.egress.allow }}{{ $_ := set $data "SHIELD_EGRESS_ALLOW" (join "," .) }}{{ end -}}
{{- with .Values.tracing.otlpEndpoint }}{{ $_ := set $data "SHIELD_TELEMETRY_OTLP_ENDPOINT" . }}{{ end -}}
{{- range $key, $value := .Values.config }}{{ $_ := set $data $key (toString $value) }}{{ end -}}
{{- toYaml $data -}}
{{- end -}}

{{/* Those that an IngestJob's pod needs: it serves nobody. */}}
{{- define "shield.podConfig" -}}
{{- $data := include "shield.config" . | fromYaml -}}
{{- range list "SHIELD_HOST" "SHIELD_API_DRAIN" "SHIELD_API_TURN" "SHIELD_API_MAX_LAG" "SHIELD_ALLOWED_HOSTS" "SHIELD_ALLOWED_ORIGINS" "SHIELD_PUBLIC_URL" "SHIELD_AUTH_MODE" "SHIELD_AUTH_ALLOW_OPEN" "SHIELD_AUTH_ISSUER" "SHIELD_AUTH_AUDIENCE" -}}
{{- $_ := unset $data . -}}
{{- end -}}
{{- toYaml $data -}}
{{- end -}}
