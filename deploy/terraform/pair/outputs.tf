output "spot_group" {
  description = "Name of the Spot group, for spec.spotGroup."
  value       = aws_autoscaling_group.this["spot"].name
}

output "on_demand_group" {
  description = "Name of the on-demand group, for spec.onDemandGroup."
  value       = aws_autoscaling_group.this["on-demand"].name
}
