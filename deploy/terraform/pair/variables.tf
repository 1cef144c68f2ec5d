variable "name" {
  description = "Name of the pool. The groups are called NAME-spot and NAME-on-demand."
  type        = string
}

variable "cluster_name" {
  description = "Name of the EKS cluster."
  type        = string
}

variable "launch_template_id" {
  description = "Launch template of both groups, without instance market options. Its user data lets nodes register with the label spotguard.dev/pool=NAME."
  type        = string
}

variable "launch_template_version" {
  description = "Version of the launch template."
  type        = string
  default     = "$Latest"
}

variable "subnet_ids" {
  description = "Subnets of both groups, one per Availability Zone."
  type        = list(string)

  validation {
    condition     = length(var.subnet_ids) > 0
    error_message = "subnet_ids must name at least one subnet."
  }
}

variable "instance_types" {
  description = "Instance types of both groups, in order of preference. Types of one size, so that a replacement has room for the same pods."
  type        = list(string)

  validation {
    condition     = length(var.instance_types) > 0
    error_message = "instance_types must name at least one type."
  }
}

variable "spot_size" {
  description = "Sizes of the Spot group. Desired capacity is set once; later it is the controller's and the autoscaler's."
  type        = object({ min = number, max = number, desired = number })

  validation {
    condition     = 0 <= var.spot_size.min && var.spot_size.min <= var.spot_size.desired && var.spot_size.desired < var.spot_size.max
    error_message = "spot_size must have min <= desired < max: a replacement is launched before the old instance is terminated."
  }
}

variable "on_demand_size" {
  description = "Sizes of the on-demand group that stands in. Its maximum bounds how many fallbacks are open at once."
  type        = object({ min = number, max = number, desired = number })
  default     = { min = 0, max = 10, desired = 0 }

  validation {
    condition     = 0 <= var.on_demand_size.min && var.on_demand_size.min <= var.on_demand_size.desired && var.on_demand_size.desired < var.on_demand_size.max
    error_message = "on_demand_size must have min <= desired < max."
  }
}
