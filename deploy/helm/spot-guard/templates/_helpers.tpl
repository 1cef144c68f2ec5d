{{- /* The image, by digest if there is one. */ -}}
{{- define "spot-guard.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- /* What a pod of a component is known by. */ -}}
{{- define "spot-guard.selector" -}}
app.kubernetes.io/name: spot-guard
app.kubernetes.io/component: {{ . }}
{{- end -}}

{{- /* What both containers may do: nothing. */ -}}
{{- define "spot-guard.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- /* What both pods run as. */ -}}
{{- define "spot-guard.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- /* The configuration: what values set, and all of `settings`. */ -}}
{{- define "spot-guard.config" -}}
{{- if not (or .Values.agent.enabled .Values.queue.url) -}}
{{- fail "agent.enabled is false and queue.url is empty: nobody would announce an interruption. Set queue.url (docs/queue.md), or keep the agents." -}}
{{- end -}}
{{- $lease := dict "name" "spot-guard-controller" "namespace" .Release.Namespace -}}
{{- $own := dict
      "listen" (printf "%s:8080" .Values.listenAddress)
      "probeListen" (printf "%s:8082" .Values.listenAddress)
      "lease" (merge $lease (.Values.settings.lease | default dict)) -}}
{{- with .Values.tls.secretName -}}
{{- $_ := set $own "tls" (dict "certificate" "/etc/spot-guard-tls/tls.crt" "key" "/etc/spot-guard-tls/tls.key") -}}
{{- end -}}
{{- with .Values.clusterName -}}
{{- $_ := set $own "clusterName" . -}}
{{- end -}}
{{- with .Values.queue.url -}}
{{- $_ := set $own "queue" (dict "url" .) -}}
{{- end -}}
{{- if .Values.scaleDownWebhook.secretName -}}
{{- $files := list -}}
{{- range .Values.scaleDownWebhook.keys -}}
{{- $files = append $files (printf "/etc/spot-guard-webhook/%s" .) -}}
{{- end -}}
{{- $_ := set $own "webhookSecretFiles" $files -}}
{{- end -}}
{{- if .Values.notifications -}}
{{- $targets := list -}}
{{- range $at, $target := .Values.notifications -}}
{{- $file := printf "/etc/spot-guard-notifications/%d/%s" $at $target.key -}}
{{- $targets = append $targets (merge (dict "urlFile" $file) (omit $target "secretName" "key")) -}}
{{- end -}}
{{- $_ := set $own "notifications" $targets -}}
{{- end -}}
{{- toYaml (merge $own .Values.settings) -}}
{{- end -}}
