{{/* What every pod of the chart has in common: the restricted profile, and how the processes of Shield run. */}}

{{- define "shield.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ . }}
runAsGroup: {{ . }}
fsGroup: {{ . }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "shield.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* Beginning of a pod's spec: dict root, account (name, optional), token (bool), uid. */}}
{{- define "shield.podHead" -}}
serviceAccountName: {{ .account | default (include "shield.fullname" .root) }}
automountServiceAccountToken: {{ default false .token }}
enableServiceLinks: false
{{- include "shield.pullSecrets" .root }}
securityContext:
  {{- include "shield.podSecurity" (default 10001 .uid) | nindent 2 }}
{{- end -}}

{{/* Where a pod runs: dict root, at (values of the process, optional), component, matchLabels. */}}
{{- define "shield.placement" -}}
{{- $at := default (dict) .at -}}
{{- with $at.priorityClassName | default .root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with merge (dict) (default (dict) $at.nodeSelector) .root.Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with concat .root.Values.tolerations (default list $at.tolerations) }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $at.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if .spread }}
topologySpreadConstraints:
  {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "shield.selector" $ | nindent 8 }}
    matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- end }}
{{- end -}}

{{- define "shield.caMount" -}}
{{- if .Values.caBundle.configMap }}
- {name: ca, mountPath: /etc/shield/ca, readOnly: true}
{{- end }}
{{- end -}}
{{- define "shield.caVolume" -}}
{{- if .Values.caBundle.configMap }}
- name: ca
  configMap:
    name: {{ .Values.caBundle.configMap }}
    items: [{key: {{ .Values.caBundle.key }}, path: ca.crt}]
{{- end }}
{{- end -}}

{{/* Environment of a process that calls models, identity provider or object store. */}}
{{- define "shield.outsideEnv" -}}
{{- if .Values.caBundle.configMap }}
- {name: SSL_CERT_FILE, value: /etc/shield/ca/ca.crt}
{{- end }}
{{- if or .Values.proxy.http .Values.proxy.https }}
{{- with .Values.proxy.http }}
- {name: HTTP_PROXY, value: {{ . | quote }}}
{{- end }}
{{- with .Values.proxy.https }}
- {name: HTTPS_PROXY, value: {{ . | quote }}}
{{- end }}
{{- $ours := list "localhost" "127.0.0.1" ".svc" (printf ".%s" .Values.clusterDomain) (printf "%s-api" (include "shield.fullname" .)) }}
- {name: NO_PROXY, value: {{ concat $ours .Values.proxy.noProxy | join "," | quote }}}
{{- end }}
{{- end -}}

{{/* envFrom of a process: dict root, secrets (services, auth). Without `auth` in mode none there is no such Secret. */}}
{{- define "shield.envFrom" -}}
- configMapRef: {name: {{ include "shield.fullname" .root }}-config}
{{- range .secrets }}
- secretRef: {name: {{ include "shield.secret" (dict "root" $.root "secret" .) }}}
{{- end }}
{{- end -}}

{{- define "shield.scratchMounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: data, mountPath: /var/lib/shield}
{{- include "shield.caMount" . }}
{{- end -}}
{{- define "shield.scratchVolumes" -}}
- {name: tmp, emptyDir: {}}
- {name: data, emptyDir: {}}
{{- include "shield.caVolume" . }}
{{- end -}}

{{/* Annotations that restart pods when what they read at their start changes. */}}
{{- define "shield.checksums" -}}
checksum/config: {{ include (print .Template.BasePath "/config.yaml") . | sha256sum }}
checksum/secrets: {{ printf "%s %s" (toYaml .Values.existingSecrets) .Release.Name | sha256sum }}
{{- end -}}

{{/*
A process of the fleet as a Deployment. dict:
  root, component, at (its values), name (suffix; default component), args, image, secrets, port (0: none), env (YAML of more variables),
  tag, digest, track (stable, canary or empty), replicas ("" where another controller owns them), extraEnv
*/}}
{{- define "shield.deployment" -}}
{{- $root := .root -}}
{{- $name := default .component .name -}}
{{- $labels := dict -}}
{{- if .track }}{{ $labels = dict "app" (printf "%s-%s" (include "shield.fullname" $root) $name) "track" .track }}{{ end -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "shield.metadata" (dict "root" $root "component" .component "name" $name "labels" $labels) | nindent 2 }}
spec:
  {{- if ne (toString .replicas) "" }}
  replicas: {{ .replicas }}
  {{- end }}
  revisionHistoryLimit: {{ $root.Values.revisionHistoryLimit }}
  strategy:
    type: RollingUpdate
    rollingUpdate: {maxSurge: {{ ternary "100%" "25%" (gt (int .port) 0) }}, maxUnavailable: {{ ternary 0 1 (gt (int .port) 0) }}}
  selector:
    matchLabels:
      {{- include "shield.selector" . | nindent 6 }}
      {{- with $labels }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
  template:
    metadata:
      labels:
        {{- include "shield.podLabels" . | nindent 8 }}
        {{- with merge (dict) $labels .at.podLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      annotations:
        {{- include "shield.checksums" $root | nindent 8 }}
        {{- with .at.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      {{- include "shield.podHead" (dict "root" $root) | nindent 6 }}
      {{- include "shield.placement" (dict "root" $root "at" .at "component" .component "spread" true) | nindent 6 }}
      terminationGracePeriodSeconds: 75
      containers:
        - name: shield
          image: {{ include "shield.image" (dict "root" $root "image" .image "tag" (default "" .tag) "digest" (default "" .digest)) }}
          imagePullPolicy: {{ $root.Values.imagePullPolicy }}
          args: {{ toJson .args }}
          envFrom:
            {{- include "shield.envFrom" . | nindent 12 }}
          env:
            {{- .env | nindent 12 }}
            {{- include "shield.outsideEnv" $root | nindent 12 }}
            {{- with concat .at.env (default list .extraEnv) }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          ports:
            {{- if .port }}
            - {name: http, containerPort: {{ .port }}}
            {{- end }}
            - {name: metrics, containerPort: 9090}
          # Alive = its event loop turns; ready = it has its schema and its dependencies. A busy server is neither restarted nor taken away.
          startupProbe:
            httpGet: {path: /livez, port: metrics}
            periodSeconds: 2
            timeoutSeconds: 5
            failureThreshold: 90
          readinessProbe:
            httpGet: {path: /readyz, port: metrics}
            periodSeconds: 2
            timeoutSeconds: 5
          livenessProbe:
            httpGet: {path: /livez, port: metrics}
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 6
          {{- if .port }}
          lifecycle:
            preStop: {sleep: {seconds: 5}} # until no proxy sends it new calls
          {{- end }}
          resources:
            {{- toYaml .at.resources | nindent 12 }}
          securityContext:
            {{- include "shield.containerSecurity" $root | nindent 12 }}
          volumeMounts:
            {{- include "shield.scratchMounts" $root | nindent 12 }}
      volumes:
        {{- include "shield.scratchVolumes" $root | nindent 8 }}
{{- end -}}

{{/* A Service in front of a process: dict root, component, at, port, labels (more of the selector), name. */}}
{{- define "shield.service" -}}
apiVersion: v1
kind: Service
metadata:
  {{- include "shield.metadata" (dict "root" .root "component" .component "name" .name "annotations" .at.service.annotations) | nindent 2 }}
spec:
  type: {{ .at.service.type }}
  selector:
    {{- include "shield.selector" . | nindent 4 }}
    {{- with .labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  ports:
    - {name: http, port: {{ .port }}, targetPort: http, appProtocol: http}
{{- end -}}

{{/* What Prometheus scrapes: a headless Service over all pods of a process, ready or not. */}}
{{- define "shield.metricsService" -}}
apiVersion: v1
kind: Service
metadata:
  {{- include "shield.metadata" (dict "root" .root "component" .component "name" (printf "%s-metrics" .component) "labels" (dict "shield.hx-citadel.io/metrics" "true")) | nindent 2 }}
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  selector:
    {{- include "shield.selector" . | nindent 4 }}
  ports:
    - {name: metrics, port: 9090, targetPort: metrics}
{{- end -}}
