# A pair of groups as a SpotPool wants them: one all Spot, one all on-demand, with the same launch template.

locals {
  groups = {
    spot      = merge(var.spot_size, { on_demand_percentage = 0 })
    on-demand = merge(var.on_demand_size, { on_demand_percentage = 100 })
  }

  tags = {
    "spotguard.dev/cluster"                     = { value = var.cluster_name, propagate = false }
    "kubernetes.io/cluster/${var.cluster_name}" = { value = "owned", propagate = true }
    "Name"                                      = { value = var.name, propagate = true }
  }
}

resource "aws_autoscaling_group" "this" {
  for_each = local.groups

  name                = "${var.name}-${each.key}"
  min_size            = each.value.min
  max_size            = each.value.max
  desired_capacity    = each.value.desired
  vpc_zone_identifier = var.subnet_ids

  # Spot Guard replaces by itself, and no process terminates instances of its own choice.
  capacity_rebalance  = false
  suspended_processes = ["AZRebalance"]

  mixed_instances_policy {
    instances_distribution {
      on_demand_base_capacity                  = 0
      on_demand_percentage_above_base_capacity = each.value.on_demand_percentage
      spot_allocation_strategy                 = "price-capacity-optimized"
    }

    launch_template {
      launch_template_specification {
        launch_template_id = var.launch_template_id
        version            = var.launch_template_version
      }

      dynamic "override" {
        for_each = var.instance_types

        content {
          instance_type = override.value
        }
      }
    }
  }

  dynamic "tag" {
    for_each = local.tags

    content {
      key                 = tag.key
      value               = tag.value.value
      propagate_at_launch = tag.value.propagate
    }
  }

  lifecycle {
    ignore_changes = [desired_capacity]
  }
}
