{{/*
Items of the main container's env: where its AWS SDK reports usage, and what it needs to check the proof.
*/}}
{{- define "tollgate.mainEnv" -}}
{{- include "tollgate.check" . -}}
- name: AWS_ENDPOINT_URL_MARKETPLACE_METERING
  value: http://127.0.0.1:8421
{{ include "tollgate.podUidEnv" . }}
{{- if eq .Values.tollgate.mode "plain" }}
{{- include "tollgate.proofEnv" . }}
{{- end }}
{{- end -}}

{{/*
Items of the main container's volumeMounts: the status file, and in mode plain what `tollgate wait` needs.
*/}}
{{- define "tollgate.mainVolumeMounts" -}}
{{- include "tollgate.check" . -}}
- name: tollgate-run
  mountPath: /run/tollgate
  readOnly: true
{{- if eq .Values.tollgate.mode "plain" }}
- name: tollgate-bin
  mountPath: /opt/tollgate
  readOnly: true
{{- if .Values.tollgate.publicKeys }}
- name: tollgate-keys
  mountPath: /etc/tollgate/keys
  readOnly: true
{{- end }}
{{- end }}
{{- end -}}

{{/*
The main container's command, given as a list: {{ include "tollgate.mainCommand" (list . (list "server" "--port" "80")) }}. In mode plain it is held by
`tollgate wait` until the proof verifies.
*/}}
{{- define "tollgate.mainCommand" -}}
{{- $root := first . -}}
{{- $command := last . -}}
{{- if eq $root.Values.tollgate.mode "plain" -}}
{{- $command = concat (list "/opt/tollgate/tollgate" "wait" (printf "--timeout=%s" $root.Values.tollgate.registerDeadline) "--") $command -}}
{{- end -}}
{{ toJson $command }}
{{- end -}}
