variable "cluster_name" {
  description = "Name of the EKS cluster. The controller may change groups with this name in their tag spotguard.dev/cluster, and no others."
  type        = string

  validation {
    condition     = can(regex("^[0-9A-Za-z][0-9A-Za-z_-]{0,99}$", var.cluster_name))
    error_message = "cluster_name must be the name of an EKS cluster: letters, digits, - and _, at most 100."
  }
}

variable "groups" {
  description = "Names of the Auto Scaling groups of all pools, Spot and on-demand. Each is tagged for the controller."
  type        = set(string)
  default     = []
}

variable "namespace" {
  description = "Namespace of the controller."
  type        = string
  default     = "spot-guard"
}

variable "service_account" {
  description = "Service account of the controller."
  type        = string
  default     = "spot-guard-controller"
}

variable "role_name" {
  description = "Name of the role. By default spot-guard- and the name of the cluster."
  type        = string
  default     = null
}

variable "oidc_provider_arn" {
  description = "ARN of the cluster's OIDC provider, for a role by service account. Without it EKS Pod Identity is used."
  type        = string
  default     = null
}

variable "launch_instances" {
  description = "Whether the controller may call LaunchInstances, whose answer shows at once that a market is out of capacity."
  type        = bool
  default     = true
}

variable "queue" {
  description = "Whether EventBridge sends what EC2 announces to a queue that the controller reads, beside the agents or instead of them."
  type        = bool
  default     = false
}

variable "tags" {
  description = "Tags of the role, its policies and the queue."
  type        = map(string)
  default     = {}
}
