{{/* What the hook makes once: names, and of each key where its value comes from. Empty if everything is given. */}}
{{- define "shield.madeSecrets" -}}
{{- $name := include "shield.fullname" . -}}
{{- $made := list -}}
{{- if include "shield.dev" . -}}
{{- $stores := dict -}}
{{- $services := dict -}}
{{- if .Values.postgres.enabled -}}
{{- $_ := set $stores "postgres-password" (dict "random" "hex") -}}
{{- $_ := set $services "SHIELD_POSTGRES_DSN" (dict "text" (printf "postgresql://shield:{stores/postgres-password}@%s-postgres.%s.svc:5432/shield" $name .Release.Namespace)) -}}
{{- end -}}
{{- if .Values.redis.enabled -}}
{{- $_ := set $stores "redis-password" (dict "random" "hex") -}}
{{- $_ := set $stores "redis.conf" (dict "text" "bind * -::*\nport 6379\nsave \"\"\nappendonly no\nrequirepass {stores/redis-password}\n") -}}
{{- $_ := set $services "SHIELD_REDIS_URL" (dict "text" (printf "redis://:{stores/redis-password}@%s-redis.%s.svc:6379/0" $name .Release.Namespace)) -}}
{{- end -}}
{{- if .Values.qdrant.enabled -}}
{{- $_ := set $stores "qdrant-api-key" (dict "random" "hex") -}}
{{- $_ := set $services "SHIELD_QDRANT_API_KEY" (dict "text" "{stores/qdrant-api-key}") -}}
{{- end -}}
{{- if $stores -}}{{- $made = append $made (dict "id" "stores" "name" (printf "%s-stores" $name) "keys" $stores) -}}{{- end -}}
{{- if not .Values.existingSecrets.services -}}{{- $made = append $made (dict "id" "services" "name" (printf "%s-services" $name) "keys" $services) -}}{{- end -}}
{{- if not .Values.existingSecrets.auth -}}
{{- $made = append $made (dict "id" "auth" "name" (printf "%s-auth" $name) "keys" (dict "SHIELD_AUTH_HOP_SECRET" (dict "random" "hex"))) -}}
{{- end -}}
{{- end -}}
{{- if and (eq .Values.auth.mode "api-key") (not .Values.existingSecrets.keys) -}}
{{- $keys := dict -}}
{{- range list "admin" "operator" "smoke" "probe" -}}{{- $_ := set $keys . (dict "random" "api-key") -}}{{- end -}}
{{- $made = append $made (dict "id" "keys" "name" (printf "%s-keys" $name) "keys" $keys) -}}
{{- end -}}
{{- toJson $made -}}
{{- end -}}
