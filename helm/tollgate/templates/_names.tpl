{{- define "tollgate.image" -}}
{{- $image := .Values.tollgate.image -}}
{{- if $image.digest -}}{{ $image.repository }}@{{ $image.digest }}
{{- else -}}{{ $image.repository }}:{{ $image.tag }}{{- end -}}
{{- end -}}

{{- define "tollgate.keysName" -}}
{{ .Release.Name | trunc 50 | trimSuffix "-" }}-tollgate-keys
{{- end -}}

{{- define "tollgate.serviceAccountName" -}}
{{ .Values.tollgate.serviceAccount.name | default (printf "%s-tollgate" (.Release.Name | trunc 50 | trimSuffix "-")) }}
{{- end -}}

{{/*
Versions and files of the public keys, as TOLLGATE_PUBLIC_KEYS wants them.
*/}}
{{- define "tollgate.publicKeys" -}}
{{- $pairs := list -}}
{{- range $version := keys .Values.tollgate.publicKeys | sortAlpha -}}
{{- $pairs = append $pairs (printf "%s=/etc/tollgate/keys/%s.pem" $version $version) -}}
{{- end -}}
{{- range $version, $file := .Values.tollgate.publicKeyFiles -}}
{{- $pairs = append $pairs (printf "%s=%s" $version $file) -}}
{{- end -}}
{{ join "," $pairs }}
{{- end -}}

{{- define "tollgate.securityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
readOnlyRootFilesystem: true
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end -}}
