{{/* Egress rules of NetworkPolicies, each as a list of rules in YAML; empty where there is nothing to reach. */}}

{{- define "shield.netDns" -}}
{{- $default := dict "namespaceSelector" (dict "matchLabels" (dict "kubernetes.io/metadata.name" "kube-system")) "podSelector" (dict "matchLabels" (dict "k8s-app" "kube-dns")) -}}
- to:
    {{- toYaml (default (list $default) .Values.networkPolicy.dns) | nindent 4 }}
  ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
{{- end -}}

{{/* A service outside the release: dict at (cidrs, podLabels, port). */}}
{{- define "shield.netOutside" -}}
{{- if or .at.cidrs .at.podLabels }}
- to:
    {{- range .at.cidrs }}
    - ipBlock: {cidr: {{ . | quote }}}
    {{- end }}
    {{- with .at.podLabels }}
    - namespaceSelector: {}
      podSelector:
        matchLabels:
          {{- toYaml . | nindent 10 }}
    {{- end }}
  ports: [{port: {{ .at.port }}, protocol: TCP}]
{{- end }}
{{- end -}}

{{/* Pods of the release: dict root, component, port. */}}
{{- define "shield.netOurs" -}}
- to:
    - podSelector:
        matchLabels:
          {{- include "shield.selector" . | nindent 10 }}
  ports: [{port: {{ .port }}, protocol: TCP}]
{{- end -}}

{{- define "shield.netStores" -}}
{{- range $store, $port := dict "postgres" 5432 "redis" 6379 "qdrant" 6333 }}
{{- if include "shield.runs" (dict "root" $ "store" $store) }}
{{ include "shield.netOurs" (dict "root" $ "component" $store "port" $port) }}
{{- else }}
{{- include "shield.netOutside" (dict "at" (index $.Values.external $store)) }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Models, traces, the outbound proxy. */}}
{{- define "shield.netServices" -}}
{{- range list .Values.llm .Values.embedding .Values.tracing (dict "cidrs" .Values.networkPolicy.proxyCidrs "podLabels" nil "port" .Values.networkPolicy.proxyPort) }}
{{- include "shield.netOutside" (dict "at" .) }}
{{- end }}
{{- with .Values.networkPolicy.extraEgress }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The public web: everything but what is private, special or denied by name. dict root, ports */}}
{{- define "shield.netPublic" -}}
{{- $four := list "0.0.0.0/8" "10.0.0.0/8" "100.64.0.0/10" "127.0.0.0/8" "169.254.0.0/16" "172.16.0.0/12" "192.0.0.0/24" "192.0.2.0/24" "192.168.0.0/16" "198.18.0.0/15" "198.51.100.0/24" "203.0.113.0/24" "224.0.0.0/4" "240.0.0.0/4" -}}
{{- $six := list "::/96" "::1/128" "64:ff9b:1::/48" "100::/64" "2001:db8::/32" "fc00::/7" "fe80::/10" "fec0::/10" "ff00::/8" -}}
{{- range .root.Values.networkPolicy.deniedCidrs -}}
{{- if contains ":" . }}{{ $six = append $six . }}{{ else }}{{ $four = append $four . }}{{ end -}}
{{- end -}}
- to:
    - ipBlock:
        cidr: 0.0.0.0/0
        except: {{ uniq $four | toJson }}
    - ipBlock:
        cidr: "::/0"
        except: {{ uniq $six | toJson }}
  ports:
    {{- range .ports }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
{{- end -}}

{{/* What a crawl may reach. */}}
{{- define "shield.netWeb" -}}
{{ include "shield.netPublic" (dict "root" . "ports" .Values.egress.ports) }}
{{- range .Values.egress.allow }}
- to:
    - ipBlock: {cidr: {{ regexReplaceAll ":[0-9]+$" . "" | trimPrefix "[" | trimSuffix "]" | quote }}}
  ports: [{port: {{ regexFind "[0-9]+$" . }}, protocol: TCP}]
{{- end }}
{{- end -}}

{{- define "shield.netOidc" -}}
{{- if eq .Values.auth.mode "oidc" }}
{{- if .Values.networkPolicy.oidcCidrs }}
{{- include "shield.netOutside" (dict "at" (dict "cidrs" .Values.networkPolicy.oidcCidrs "podLabels" nil "port" 443)) }}
{{- else }}
{{ include "shield.netPublic" (dict "root" . "ports" (list 443)) }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "shield.netApiServer" -}}
- to:
    {{- range default (list "0.0.0.0/0" "::/0") .Values.networkPolicy.apiServerCidrs }}
    - ipBlock: {cidr: {{ . | quote }}}
    {{- end }}
  ports:
    {{- range .Values.networkPolicy.apiServerPorts }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
{{- end -}}

{{/* Ingress from processes of the release, and from peers. dict root, components, peers, port */}}
{{- define "shield.netFrom" -}}
- from:
    {{- range .components }}
    - podSelector:
        matchLabels:
          {{- include "shield.selector" (dict "root" $.root "component" .) | nindent 10 }}
    {{- end }}
    {{- with .peers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  ports: [{port: {{ .port }}, protocol: TCP}]
{{- end -}}
