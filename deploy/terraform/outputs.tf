output "role_arn" {
  description = "ARN of the controller's role. With a role by service account it is the annotation eks.amazonaws.com/role-arn (value serviceAccount.annotations of the chart)."
  value       = aws_iam_role.controller.arn
}

output "queue_url" {
  description = "URL of the notice queue, for the value queue.url of the chart; null without a queue."
  value       = one(aws_sqs_queue.notices[*].url)
}
