{{/* Names and labels. Selector labels never change with a version, because they cannot be changed. */}}

{{- define "heim.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "heim.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: heim
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Labels that select a component's pods: (dict "root" $ "component" "proxy"). */}}
{{- define "heim.selector" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "heim.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ default .Chart.AppVersion $image.tag }}
{{- end -}}
{{- end -}}

{{- define "heim.loginHost" -}}
{{- default (printf "auth.%s" .Values.domain) .Values.loginHost -}}
{{- end -}}

{{/* The ConfigMap that the controller writes and the proxy reads; further ones carry a number. */}}
{{- define "heim.configuration" -}}
{{ include "heim.fullname" . }}-configuration
{{- end -}}

{{/* Whether the Proxy object is part of this rendering. Helm looks up the kind of every object before it creates
the first one, so an object cannot come with its kind: the first installation goes without it, and the controller
uses what is in its flags. */}}
{{- define "heim.hasProxyObject" -}}
{{- $known := or .Release.IsUpgrade (not .Values.crds.enabled) (.Capabilities.APIVersions.Has "heim.dev/v1alpha1/Proxy") -}}
{{- if or (eq .Values.proxyObject "always") (and (eq .Values.proxyObject "auto") $known) -}}true{{- end -}}
{{- end -}}

{{- define "heim.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "heim.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* What pods of both components take from values alike. */}}
{{- define "heim.scheduling" -}}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* A duration such as 300s, 5m or 8h in seconds. */}}
{{- define "heim.seconds" -}}
{{- $number := regexFind "^[0-9]+" . | int -}}
{{- $unit := regexFind "[a-z]+$" . -}}
{{- if eq $unit "h" -}}{{ mul $number 3600 }}{{- else if eq $unit "m" -}}{{ mul $number 60 }}{{- else -}}{{ $number }}{{- end -}}
{{- end -}}
