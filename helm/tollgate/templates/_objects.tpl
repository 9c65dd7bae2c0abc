{{/*
The service account with its IRSA role; nothing where one of yours is used.
*/}}
{{- define "tollgate.serviceAccount" -}}
{{- include "tollgate.check" . -}}
{{- if .Values.tollgate.serviceAccount.create -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "tollgate.serviceAccountName" . }}
  namespace: {{ .Release.Namespace }}
  {{- with .Values.tollgate.serviceAccount.roleArn }}
  annotations:
    eks.amazonaws.com/role-arn: {{ . }}
  {{- end }}
automountServiceAccountToken: false
{{- end -}}
{{- end -}}

{{/*
The public keys that are given as text.
*/}}
{{- define "tollgate.keys" -}}
{{- include "tollgate.check" . -}}
{{- if .Values.tollgate.publicKeys -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "tollgate.keysName" . }}
  namespace: {{ .Release.Namespace }}
data:
  {{- range $version, $text := .Values.tollgate.publicKeys }}
  {{ $version }}.pem: |
    {{- $text | trim | nindent 4 }}
  {{- end }}
{{- end -}}
{{- end -}}

{{/*
For the Prometheus Operator. The labels that select the pods come second: {{ include "tollgate.podMonitor" (list . $labels) }}.
*/}}
{{- define "tollgate.podMonitor" -}}
{{- $root := first . -}}
{{- $labels := last . -}}
{{- $monitor := $root.Values.tollgate.podMonitor -}}
{{- if $monitor.enabled -}}
apiVersion: monitoring.coreos.com/v1
kind: PodMonitor
metadata:
  name: {{ $root.Release.Name | trunc 50 | trimSuffix "-" }}-tollgate
  namespace: {{ $root.Release.Namespace }}
  {{- with $monitor.labels }}
  labels:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  selector:
    matchLabels:
      {{- toYaml $labels | nindent 6 }}
  podMetricsEndpoints:
    - port: tollgate
      path: /metrics
      interval: {{ $monitor.interval }}
{{- end -}}
{{- end -}}
