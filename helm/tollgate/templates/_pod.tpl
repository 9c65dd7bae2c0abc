{{/*
Items of the pod's volumes.
*/}}
{{- define "tollgate.volumes" -}}
{{- include "tollgate.check" . -}}
{{- $t := .Values.tollgate -}}
- name: tollgate-run
  emptyDir: {}
- name: tollgate-state
  {{- toYaml $t.stateVolume | nindent 2 }}
{{- if eq $t.mode "plain" }}
- name: tollgate-bin
  emptyDir: {}
{{- end }}
{{- if $t.publicKeys }}
- name: tollgate-keys
  configMap:
    name: {{ include "tollgate.keysName" . }}
{{- end }}
{{- with $t.caBundle.configMap }}
- name: tollgate-ca
  configMap:
    name: {{ . }}
{{- end }}
{{- end -}}

{{/*
Fields of the pod's spec: the service account, and the time to bill what is open.
*/}}
{{- define "tollgate.podSpec" -}}
{{- include "tollgate.check" . -}}
serviceAccountName: {{ include "tollgate.serviceAccountName" . }}
terminationGracePeriodSeconds: {{ .Values.tollgate.terminationGracePeriodSeconds }}
{{- end -}}

{{/*
The pod's securityContext: a group that may read the web identity token, whichever users the other containers have.
*/}}
{{- define "tollgate.podSecurityContext" -}}
runAsNonRoot: true
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}
