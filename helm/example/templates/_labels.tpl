{{- define "example.selector" -}}
app.kubernetes.io/name: example
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}
