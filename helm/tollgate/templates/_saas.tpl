{{/*
One tollgate for all replicas of a SaaS application: AWS counts once per customer, dimension and hour, so what several replicas report has to be summed in one place.
A StatefulSet of one pod with a volume, the Service that leads to it, and a NetworkPolicy that lets only the application's pods in.
*/}}
{{- define "tollgate.saas" -}}
{{- include "tollgate.check.saas" . -}}
{{ include "tollgate.saas.statefulSet" . }}
---
{{ include "tollgate.saas.service" . }}
---
{{ include "tollgate.saas.networkPolicy" . }}
---
{{ include "tollgate.serviceAccount" . }}
{{- end -}}

{{- define "tollgate.check.saas" -}}
{{- include "tollgate.check" . -}}
{{- $t := .Values.tollgate -}}
{{- if and (not $t.sealed) (ne $t.entitlementCheck "none") -}}
{{- fail (printf "tollgate.entitlementCheck is %s, but SaaS runs in your own account, where nobody is asked for entitlement at start: set tollgate.entitlementCheck=none" $t.entitlementCheck) -}}
{{- end -}}
{{- if not $t.saas.clientsSecret -}}
{{- fail "tollgate.saas.clientsSecret is empty: other pods reach this tollgate, so callers must sign; set it to a Secret whose clients.toml has a [[key]] for each caller (docs/client-authentication.md)" -}}
{{- end -}}
{{- if not $t.saas.callers -}}
{{- fail "tollgate.saas.callers is empty: set it to labels of the pods that may call, for the NetworkPolicy" -}}
{{- end -}}
{{- end -}}

{{- define "tollgate.saas.name" -}}
{{ .Release.Name | trunc 50 | trimSuffix "-" }}-tollgate
{{- end -}}

{{- define "tollgate.saas.labels" -}}
app.kubernetes.io/name: tollgate
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/*
Where callers report: the value of their AWS_ENDPOINT_URL_MARKETPLACE_METERING.
*/}}
{{- define "tollgate.saas.url" -}}
http://{{ include "tollgate.saas.name" . }}.{{ .Release.Namespace }}.svc:8421
{{- end -}}

{{- define "tollgate.saas.statefulSet" -}}
{{- $t := .Values.tollgate -}}
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: {{ include "tollgate.saas.name" . }}
  namespace: {{ .Release.Namespace }}
  labels:
    {{- include "tollgate.saas.labels" . | nindent 4 }}
spec:
  # Never more: two would bill one customer's hour twice over, and AWS would take the first record alone.
  replicas: 1
  serviceName: {{ include "tollgate.saas.name" . }}
  selector:
    matchLabels:
      {{- include "tollgate.saas.labels" . | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "tollgate.saas.labels" . | nindent 8 }}
    spec:
      {{- include "tollgate.podSpec" . | nindent 6 }}
      securityContext:
        {{- include "tollgate.podSecurityContext" . | nindent 8 }}
      containers:
        - name: tollgate
          image: {{ include "tollgate.image" . }}
          imagePullPolicy: {{ $t.image.pullPolicy }}
          env:
            {{- include "tollgate.saas.env" . | nindent 12 }}
          ports:
            - name: metering
              containerPort: 8421
            - name: tollgate
              containerPort: {{ $t.healthPort }}
          {{- include "tollgate.probes" . | nindent 10 }}
          securityContext:
            {{- include "tollgate.securityContext" . | nindent 12 }}
          resources:
            {{- toYaml $t.saas.resources | nindent 12 }}
          volumeMounts:
            - name: tollgate-run
              mountPath: /run/tollgate
            - name: tollgate-state
              mountPath: /var/lib/tollgate
            - name: tollgate-clients
              mountPath: /etc/tollgate/clients
              readOnly: true
            {{- if $t.caBundle.configMap }}
            - name: tollgate-ca
              mountPath: /etc/tollgate/ca
              readOnly: true
            {{- end }}
      volumes:
        - name: tollgate-run
          emptyDir: {}
        - name: tollgate-clients
          secret:
            secretName: {{ $t.saas.clientsSecret }}
            defaultMode: 0440
        {{- with $t.caBundle.configMap }}
        - name: tollgate-ca
          configMap:
            name: {{ . }}
        {{- end }}
  volumeClaimTemplates:
    - metadata:
        name: tollgate-state
      spec:
        accessModes: [ReadWriteOnce]
        {{- with $t.saas.storageClass }}
        storageClassName: {{ . }}
        {{- end }}
        resources:
          requests:
            storage: {{ $t.saas.storage }}
{{- end -}}

{{- define "tollgate.saas.env" -}}
# No POD_UID: the host name, which the next pod has too, is the identity.
- name: TOLLGATE_LISTEN
  value: "0.0.0.0:8421"
- name: TOLLGATE_CLIENT_AUTH_FILE
  value: /etc/tollgate/clients/clients.toml
- name: TOLLGATE_SAAS_MODE
  value: {{ .Values.tollgate.saas.mode }}
{{ include "tollgate.settingsEnv" . }}
{{- end -}}

{{- define "tollgate.saas.service" -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ include "tollgate.saas.name" . }}
  namespace: {{ .Release.Namespace }}
  labels:
    {{- include "tollgate.saas.labels" . | nindent 4 }}
spec:
  selector:
    {{- include "tollgate.saas.labels" . | nindent 4 }}
  ports:
    - name: metering
      port: 8421
      targetPort: metering
{{- end -}}

{{- define "tollgate.saas.networkPolicy" -}}
{{- $t := .Values.tollgate -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "tollgate.saas.name" . }}
  namespace: {{ .Release.Namespace }}
spec:
  podSelector:
    matchLabels:
      {{- include "tollgate.saas.labels" . | nindent 6 }}
  policyTypes: [Ingress]
  ingress:
    - from:
        - podSelector:
            matchLabels:
              {{- toYaml $t.saas.callers | nindent 14 }}
      ports:
        - port: metering
    # Probes and metrics are read-only.
    - ports:
        - port: tollgate
{{- end -}}
