{{/*
A dev store: Service, claim and StatefulSet of one pod. The claim is an object of its own, so that its size can grow, and it goes or stays as
`keepDataOnUninstall` says. dict: root, store, port, env, args, mounts, volumes, probe, data (path of the volume; empty: none)
*/}}
{{- define "shield.store" -}}
{{- $root := .root -}}
{{- $at := index $root.Values .store -}}
{{- $persistent := and .data (dig "persistence" "enabled" false $at) -}}
{{- $named := dict "root" $root "component" .store "name" .store -}}
apiVersion: v1
kind: Service
metadata:
  {{- include "shield.metadata" $named | nindent 2 }}
spec:
  selector:
    {{- include "shield.selector" $named | nindent 4 }}
  ports:
    - {name: main, port: {{ .port }}, targetPort: main}
{{- if $persistent }}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  {{- $annotations := ternary (dict "helm.sh/resource-policy" "keep") (dict) $root.Values.keepDataOnUninstall }}
  {{- include "shield.metadata" (merge (dict "annotations" $annotations) $named) | nindent 2 }}
spec:
  accessModes: [ReadWriteOnce]
  {{- with $at.persistence.storageClass }}
  storageClassName: {{ . }}
  {{- end }}
  resources:
    requests:
      storage: {{ $at.persistence.size }}
{{- end }}
---
apiVersion: apps/v1
kind: StatefulSet
metadata:
  {{- include "shield.metadata" $named | nindent 2 }}
spec:
  replicas: 1
  serviceName: {{ include "shield.fullname" $root }}-{{ .store }}
  revisionHistoryLimit: {{ $root.Values.revisionHistoryLimit }}
  selector:
    matchLabels:
      {{- include "shield.selector" $named | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "shield.podLabels" $named | nindent 8 }}
      annotations:
        checksum/secrets: {{ toYaml $root.Values.existingSecrets | sha256sum }}
    spec:
      {{- include "shield.podHead" (dict "root" $root "uid" $at.uid) | nindent 6 }}
      {{- include "shield.placement" (dict "root" $root) | nindent 6 }}
      terminationGracePeriodSeconds: 30
      containers:
        - name: {{ .store }}
          image: {{ include "shield.storeImage" . }}
          imagePullPolicy: {{ $root.Values.imagePullPolicy }}
          {{- with $at.command }}
          command: {{ toJson . }}
          {{- end }}
          {{- with .args }}
          args: {{ toJson . }}
          {{- end }}
          {{- with .env }}
          env:
            {{- . | nindent 12 }}
          {{- end }}
          ports:
            - {name: main, containerPort: {{ .port }}}
          startupProbe:
            {{- .probe | nindent 12 }}
            periodSeconds: 1
            timeoutSeconds: 5
            failureThreshold: 180
          readinessProbe:
            {{- .probe | nindent 12 }}
            periodSeconds: 5
            timeoutSeconds: 5
          livenessProbe:
            {{- .probe | nindent 12 }}
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 6
          resources:
            {{- toYaml $at.resources | nindent 12 }}
          securityContext:
            {{- include "shield.containerSecurity" $root | nindent 12 }}
          volumeMounts:
            - {name: tmp, mountPath: /tmp}
            {{- with .data }}
            - {name: data, mountPath: {{ . }}}
            {{- end }}
            {{- .mounts | nindent 12 }}
      volumes:
        - {name: tmp, emptyDir: {}}
        {{- if $persistent }}
        - name: data
          persistentVolumeClaim: {claimName: {{ include "shield.fullname" $root }}-{{ .store }}}
        {{- else if .data }}
        - {name: data, emptyDir: {}}
        {{- end }}
        {{- .volumes | nindent 8 }}
{{- end -}}

{{/* The Secret with the stores' own passwords, which the hook makes. */}}
{{- define "shield.storesSecret" -}}
{{ include "shield.fullname" . }}-stores
{{- end -}}
