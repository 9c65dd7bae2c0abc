{{/*
A duration of tollgate's (500ms, 25s, 30m, 2h) in whole seconds, rounded up.
*/}}
{{- define "tollgate.seconds" -}}
{{- $number := regexFind "^[0-9]+" . | int64 -}}
{{- $unit := regexFind "[a-z]+$" . -}}
{{- if eq $unit "ms" -}}{{ div (add $number 999) 1000 }}
{{- else if eq $unit "m" -}}{{ mul $number 60 }}
{{- else if eq $unit "h" -}}{{ mul $number 3600 }}
{{- else -}}{{ $number }}{{- end -}}
{{- end -}}

{{/*
Whether RegisterUsage and so public keys are asked for.
*/}}
{{- define "tollgate.checksSignature" -}}
{{- if eq .Values.tollgate.entitlementCheck "register-usage" }}true{{ end -}}
{{- end -}}

{{/*
Refuses contradictions, each with a sentence that says what to set. Every other template of this chart begins with it.
*/}}
{{- define "tollgate.check" -}}
{{- $t := .Values.tollgate -}}
{{- include "tollgate.check.product" . -}}
{{- if and (eq $t.mode "native") (semverCompare "<1.29.0-0" .Capabilities.KubeVersion.Version) -}}
{{- fail (printf "tollgate.mode is native, but Kubernetes %s has no native sidecars (1.29 has): set tollgate.mode=plain" .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- $grace := include "tollgate.seconds" $t.shutdownGrace | int64 -}}
{{- if lt (int64 $t.terminationGracePeriodSeconds) (add $grace 5) -}}
{{- fail (printf "tollgate.terminationGracePeriodSeconds is %d, too short for tollgate.shutdownGrace=%s: set it to %d at least, plus the time that the main container takes to end" (int64 $t.terminationGracePeriodSeconds) $t.shutdownGrace (add $grace 5)) -}}
{{- end -}}
{{- $loopback := regexMatch "^http://(127\\.[0-9.]+|localhost|\\[::1\\])(:[0-9]+)?(/.*)?$" $t.endpointUrl -}}
{{- if and (ne (include "tollgate.seconds" $t.meteringPeriod) "3600") (not $loopback) -}}
{{- fail (printf "tollgate.meteringPeriod is %s, but AWS counts by the hour: set tollgate.meteringPeriod=1h, or for tests set tollgate.endpointUrl to a simulator on loopback" $t.meteringPeriod) -}}
{{- end -}}
{{- if and (hasPrefix "http://" $t.endpointUrl) $loopback (contains ":8421" $t.endpointUrl) -}}
{{- fail (printf "tollgate.endpointUrl is %s, tollgate's own endpoint: it is where AWS is; leave it empty" $t.endpointUrl) -}}
{{- end -}}
{{- range $t.extraEnv -}}
{{- if or (hasPrefix "TOLLGATE_" .name) (hasPrefix "AWS_ENDPOINT_URL" .name) (eq .name "AWS_REGION") (eq .name "AWS_CA_BUNDLE") -}}
{{- fail (printf "tollgate.extraEnv has %s: set the value of this chart that stands for it (README.md has the table)" .name) -}}
{{- end -}}
{{- end -}}
{{- if and $t.irsa $t.serviceAccount.create (not $t.serviceAccount.roleArn) -}}
{{- fail "tollgate.serviceAccount.roleArn is empty: AWS Marketplace takes a pod's credentials from IRSA alone (not from Pod Identity, not from the node); set the role's ARN, or tollgate.irsa=false where no AWS credentials are needed" -}}
{{- end -}}
{{- if and (not $t.serviceAccount.create) (not $t.serviceAccount.name) -}}
{{- fail "tollgate.serviceAccount.create is false: set tollgate.serviceAccount.name to a service account with the annotation eks.amazonaws.com/role-arn" -}}
{{- end -}}
{{- if and (hasPrefix "closed:" $t.onMeteringFailure) (lt (include "tollgate.seconds" (trimPrefix "closed:" $t.onMeteringFailure) | int64) 7200) -}}
{{- fail (printf "tollgate.onMeteringFailure is %s: AWS advises to wait for two hours at least; set closed:2h or more" $t.onMeteringFailure) -}}
{{- end -}}
{{- end -}}

{{- define "tollgate.check.product" -}}
{{- $t := .Values.tollgate -}}
{{- if $t.sealed -}}
{{- if or $t.productCode $t.publicKeys $t.publicKeyFiles -}}
{{- fail "tollgate.sealed is true, so product code and keys are in the image: leave tollgate.productCode, tollgate.publicKeys and tollgate.publicKeyFiles empty" -}}
{{- end -}}
{{- else if not $t.productCode -}}
{{- fail "tollgate.productCode is empty: set it to the product code of your listing, or tollgate.sealed=true if your image has it in /etc/tollgate/sealed.toml" -}}
{{- else if and $t.publicKeys $t.publicKeyFiles -}}
{{- fail "tollgate.publicKeys and tollgate.publicKeyFiles are both set: set the first for keys as text, or the second for files that are in the image" -}}
{{- else if and (include "tollgate.checksSignature" .) (not (or $t.publicKeys $t.publicKeyFiles)) -}}
{{- fail "tollgate.entitlementCheck is register-usage, but there are no public keys: set tollgate.publicKeys (text) or tollgate.publicKeyFiles (files in the image)" -}}
{{- else if and (not (include "tollgate.checksSignature" .)) (or $t.publicKeys $t.publicKeyFiles) -}}
{{- fail (printf "tollgate.entitlementCheck is %s, which has no signature: leave tollgate.publicKeys and tollgate.publicKeyFiles empty" $t.entitlementCheck) -}}
{{- end -}}
{{- end -}}
