# The notice queue: EventBridge writes what EC2, its groups and AWS Health announce, and the controller reads it.

locals {
  queue_count = var.queue ? 1 : 0

  # The patterns say what the controller acts on (docs/queue.md).
  events = {
    interruption = {
      source      = ["aws.ec2"]
      detail-type = ["EC2 Spot Instance Interruption Warning"]
    }
    rebalance = {
      source      = ["aws.ec2"]
      detail-type = ["EC2 Instance Rebalance Recommendation"]
    }
    state-change = {
      source      = ["aws.ec2"]
      detail-type = ["EC2 Instance State-change Notification"]
      detail      = { state = ["shutting-down", "terminated", "stopping", "stopped"] }
    }
    lifecycle-action = {
      source      = ["aws.autoscaling"]
      detail-type = ["EC2 Instance-terminate Lifecycle Action"]
    }
    maintenance = {
      source      = ["aws.health"]
      detail-type = ["AWS Health Event"]
      detail      = { service = ["EC2"], eventTypeCategory = ["scheduledChange"] }
    }
  }
}

resource "aws_sqs_queue" "dead_letters" {
  count = local.queue_count

  name                      = "spot-guard-${var.cluster_name}-dead-letters"
  message_retention_seconds = 1209600
  sqs_managed_sse_enabled   = true
  tags                      = var.tags
}

resource "aws_sqs_queue" "notices" {
  count = local.queue_count

  name                       = "spot-guard-${var.cluster_name}"
  message_retention_seconds  = 3600
  receive_wait_time_seconds  = 20
  visibility_timeout_seconds = 30
  sqs_managed_sse_enabled    = true
  tags                       = var.tags

  redrive_policy = jsonencode({
    deadLetterTargetArn = aws_sqs_queue.dead_letters[0].arn
    maxReceiveCount     = 10
  })
}

# EventBridge alone may write, and only for the rules below. Nobody else can announce anything.
data "aws_iam_policy_document" "notices" {
  count = local.queue_count

  statement {
    actions   = ["sqs:SendMessage"]
    resources = [aws_sqs_queue.notices[0].arn]

    principals {
      type        = "Service"
      identifiers = ["events.amazonaws.com"]
    }

    condition {
      test     = "ArnEquals"
      variable = "aws:SourceArn"
      values   = [for rule in aws_cloudwatch_event_rule.notices : rule.arn]
    }
  }
}

resource "aws_sqs_queue_policy" "notices" {
  count = local.queue_count

  queue_url = aws_sqs_queue.notices[0].url
  policy    = data.aws_iam_policy_document.notices[0].json
}

resource "aws_cloudwatch_event_rule" "notices" {
  for_each = var.queue ? local.events : {}

  name          = "spot-guard-${var.cluster_name}-${each.key}"
  description   = "For Spot Guard in the cluster ${var.cluster_name}"
  event_pattern = jsonencode(each.value)
  tags          = var.tags
}

resource "aws_cloudwatch_event_target" "notices" {
  for_each = aws_cloudwatch_event_rule.notices

  rule = each.value.name
  arn  = aws_sqs_queue.notices[0].arn
}
