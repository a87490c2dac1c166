{{/* Names, labels and images. */}}

{{- define "shield.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* At most 40 characters: the longest suffix leaves a valid name. */}}
{{- define "shield.fullname" -}}
{{- $name := include "shield.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "shield.selector" -}}
app.kubernetes.io/name: {{ include "shield.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Labels of an object; of pods too, but for the chart's version, which would restart them for nothing. */}}
{{- define "shield.podLabels" -}}
{{ include "shield.selector" . }}
app.kubernetes.io/part-of: shield
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "shield.labels" -}}
{{ include "shield.podLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* metadata of an object: dict root, component, name (suffix of the full name, or empty), annotations (optional), labels (optional), cluster (no namespace). */}}
{{- define "shield.metadata" -}}
{{- $annotations := merge (dict) (default (dict) .annotations) .root.Values.commonAnnotations -}}
name: {{ list (include "shield.fullname" .root) .name | compact | join "-" }}
{{- if not .cluster }}
namespace: {{ .root.Release.Namespace }}
{{- end }}
labels:
  {{- include "shield.labels" . | nindent 2 }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* One of our images: dict root, image (a key of `images`), tag and digest (optional, win). */}}
{{- define "shield.image" -}}
{{- $image := index .root.Values.images .image -}}
{{- $registry := default .root.Values.imageRegistry (dig "imageRegistry" "" .root.Values.global) -}}
{{- include "shield.reference" (dict
  "registry" $registry
  "repository" $image.repository
  "tag" (.tag | default $image.tag | default .root.Chart.AppVersion)
  "digest" (ternary .digest (ternary "" $image.digest (not (empty .tag))) (not (empty .digest)))
) -}}
{{- end -}}

{{/* A dev store's image: dict root, store. A registry of the umbrella stands for theirs, too. */}}
{{- define "shield.storeImage" -}}
{{- $image := (index .root.Values .store).image -}}
{{- include "shield.reference" (merge (dict "registry" (default $image.registry (dig "imageRegistry" "" .root.Values.global))) $image) -}}
{{- end -}}

{{- define "shield.reference" -}}
{{- $name := list .registry .repository | compact | join "/" -}}
{{- if .digest -}}{{ $name }}@{{ .digest }}{{- else -}}{{ $name }}:{{ .tag }}{{- end -}}
{{- end -}}

{{- define "shield.pullSecrets" -}}
{{- $secrets := concat (default list (dig "imagePullSecrets" list .Values.global)) .Values.imagePullSecrets | uniq -}}
{{- with $secrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ ternary . (dig "name" "" (ternary (dict) . (kindIs "string" .))) (kindIs "string" .) }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Secrets: the given one, or the one that the hook makes. dict root, secret (services, auth, keys) */}}
{{- define "shield.secret" -}}
{{- index .root.Values.existingSecrets .secret | default (printf "%s-%s" (include "shield.fullname" .root) .secret) -}}
{{- end -}}

{{/* Which stores of ours run. */}}
{{- define "shield.dev" -}}
{{- if eq .Values.mode "dev" }}true{{ end -}}
{{- end -}}
{{- define "shield.runs" -}}
{{- if and (include "shield.dev" .root) (index .root.Values .store).enabled }}true{{ end -}}
{{- end -}}

{{- define "shield.host" -}}
{{- if .Values.publicUrl }}{{ (urlParse .Values.publicUrl).host | splitList ":" | first }}{{ end -}}
{{- end -}}

{{- define "shield.qdrantUrl" -}}
{{- if include "shield.runs" (dict "root" . "store" "qdrant") -}}
http://{{ include "shield.fullname" . }}-qdrant.{{ .Release.Namespace }}.svc:6333
{{- else -}}
{{ .Values.external.qdrant.url }}
{{- end -}}
{{- end -}}
