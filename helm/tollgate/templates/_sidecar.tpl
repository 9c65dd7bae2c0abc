{{/*
Items of the pod's initContainers, to stand first: the sidecar itself (mode native), or the step that puts `tollgate wait` into a volume (mode plain).
*/}}
{{- define "tollgate.initContainers" -}}
{{- include "tollgate.check" . -}}
{{- if eq .Values.tollgate.mode "native" -}}
{{ include "tollgate.sidecar" . }}
{{- else -}}
- name: tollgate-install
  image: {{ include "tollgate.image" . }}
  imagePullPolicy: {{ .Values.tollgate.image.pullPolicy }}
  args: [install, /opt/tollgate/tollgate]
  securityContext:
    {{- include "tollgate.securityContext" . | nindent 4 }}
  resources:
    {{- toYaml .Values.tollgate.resources | nindent 4 }}
  volumeMounts:
    - name: tollgate-bin
      mountPath: /opt/tollgate
{{- end -}}
{{- end -}}

{{/*
Items of the pod's containers: nothing (mode native), or the sidecar (mode plain).
*/}}
{{- define "tollgate.containers" -}}
{{- include "tollgate.check" . -}}
{{- if eq .Values.tollgate.mode "plain" -}}
{{ include "tollgate.sidecar" . }}
{{- end -}}
{{- end -}}

{{- define "tollgate.sidecar" -}}
{{- $t := .Values.tollgate -}}
- name: tollgate
  image: {{ include "tollgate.image" . }}
  imagePullPolicy: {{ $t.image.pullPolicy }}
  {{- if eq $t.mode "native" }}
  restartPolicy: Always
  {{- end }}
  env:
    {{- include "tollgate.sidecarEnv" . | nindent 4 }}
  ports:
    - name: tollgate
      containerPort: {{ $t.healthPort }}
  {{- include "tollgate.probes" . | nindent 2 }}
  securityContext:
    {{- include "tollgate.securityContext" . | nindent 4 }}
  resources:
    {{- toYaml $t.resources | nindent 4 }}
  volumeMounts:
    - name: tollgate-run
      mountPath: /run/tollgate
    - name: tollgate-state
      mountPath: /var/lib/tollgate
    {{- if $t.publicKeys }}
    - name: tollgate-keys
      mountPath: /etc/tollgate/keys
      readOnly: true
    {{- end }}
    {{- if $t.caBundle.configMap }}
    - name: tollgate-ca
      mountPath: /etc/tollgate/ca
      readOnly: true
    {{- end }}
{{- end -}}

{{- define "tollgate.probes" -}}
startupProbe:
  httpGet:
    path: /startupz
    port: tollgate
  periodSeconds: 1
  timeoutSeconds: 3
  failureThreshold: {{ include "tollgate.startupFailures" . }}
readinessProbe:
  httpGet:
    path: /readyz
    port: tollgate
  periodSeconds: 5
  timeoutSeconds: 3
livenessProbe:
  httpGet:
    path: /livez
    port: tollgate
  periodSeconds: 10
  timeoutSeconds: 3
  failureThreshold: 6
{{- end -}}

{{/*
The startup probe, once a second, lasts as long as tollgate may ask AWS, and a minute more; with onDenied=hold it never ends.
*/}}
{{- define "tollgate.startupFailures" -}}
{{- if eq .Values.tollgate.onDenied "hold" -}}
2147483647
{{- else -}}
{{ add (include "tollgate.seconds" .Values.tollgate.registerDeadline | int64) 60 }}
{{- end -}}
{{- end -}}

{{- define "tollgate.podUidEnv" -}}
- name: POD_UID
  valueFrom:
    fieldRef:
      fieldPath: metadata.uid
{{- end -}}

{{/*
What `tollgate wait` has to know too.
*/}}
{{- define "tollgate.proofEnv" -}}
{{- $t := .Values.tollgate -}}
{{- if not $t.sealed }}
- name: TOLLGATE_PRODUCT_CODE
  value: {{ $t.productCode | quote }}
{{- with include "tollgate.publicKeys" . }}
- name: TOLLGATE_PUBLIC_KEYS
  value: {{ . | quote }}
{{- end }}
{{- end }}
{{- if ne $t.entitlementCheck "register-usage" }}
- name: TOLLGATE_ENTITLEMENT_CHECK
  value: {{ $t.entitlementCheck | quote }}
{{- end }}
{{- if ne $t.onUnavailable "exit" }}
- name: TOLLGATE_ON_UNAVAILABLE
  value: {{ $t.onUnavailable | quote }}
{{- end }}
{{- with $t.nonceFile }}
- name: TOLLGATE_NONCE_FILE
  value: {{ . | quote }}
{{- end }}
{{- end -}}

{{- define "tollgate.sidecarEnv" -}}
{{ include "tollgate.podUidEnv" . }}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
{{ include "tollgate.settingsEnv" . }}
{{- end -}}

{{- define "tollgate.settingsEnv" -}}
{{- $t := .Values.tollgate -}}
# A folder of its own: the volume itself belongs to root and is open to all.
- name: TOLLGATE_STATE_DIR
  value: /var/lib/tollgate/state
- name: TOLLGATE_HEALTH_LISTEN
  value: "0.0.0.0:{{ $t.healthPort }}"
{{- include "tollgate.proofEnv" . }}
{{- $settings := dict
  "REGISTER_DEADLINE" (list $t.registerDeadline "30m")
  "ON_DENIED" (list $t.onDenied "exit")
  "DIMENSIONS" (list (join "," $t.dimensions) "")
  "ON_METERING_FAILURE" (list $t.onMeteringFailure "open")
  "QUITQUITQUIT" (list (ternary "on" "off" $t.quitquitquit) "off")
  "METERING_PERIOD" (list $t.meteringPeriod "1h")
  "STRAGGLER_WAIT" (list $t.stragglerWait "60s")
  "SUBMIT_JITTER" (list $t.submitJitter "5m")
  "ZERO_USAGE" (list $t.zeroUsage "skip")
  "SHUTDOWN_GRACE" (list $t.shutdownGrace "25s")
  "LOG" (list $t.log "info")
  "LOG_FORMAT" (list $t.logFormat "json") -}}
{{- range $name, $pair := $settings }}
{{- if ne (first $pair) (last $pair) }}
- name: TOLLGATE_{{ $name }}
  value: {{ first $pair | quote }}
{{- end }}
{{- end }}
{{- range $name, $value := dict "AWS_ENDPOINT_URL_MARKETPLACE_METERING" $t.endpointUrl "AWS_ENDPOINT_URL_STS" $t.stsEndpointUrl "AWS_REGION" $t.region }}
{{- if $value }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}
{{- if $t.caBundle.configMap }}
- name: AWS_CA_BUNDLE
  value: /etc/tollgate/ca/{{ $t.caBundle.key }}
{{- end }}
{{- with $t.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}
