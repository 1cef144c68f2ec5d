# The role of the controller, and the tags that say which groups it may change.

locals {
  role_name    = coalesce(var.role_name, "spot-guard-${var.cluster_name}")
  pod_identity = var.oidc_provider_arn == null
  issuer       = local.pod_identity ? "" : replace(var.oidc_provider_arn, "/^[^/]*//", "")

  # The documents are those of deploy/iam, which a test compares with the calls of the controller.
  documents = merge(
    { groups = "policy.json" },
    var.launch_instances ? { launch-instances = "policy-launch-instances.json" } : {},
    var.queue ? { queue = "policy-queue.json" } : {},
  )
}

data "aws_iam_policy_document" "trust" {
  dynamic "statement" {
    for_each = local.pod_identity ? [1] : []

    content {
      actions = ["sts:AssumeRole", "sts:TagSession"]

      principals {
        type        = "Service"
        identifiers = ["pods.eks.amazonaws.com"]
      }
    }
  }

  dynamic "statement" {
    for_each = local.pod_identity ? [] : [1]

    content {
      actions = ["sts:AssumeRoleWithWebIdentity"]

      principals {
        type        = "Federated"
        identifiers = [var.oidc_provider_arn]
      }

      condition {
        test     = "StringEquals"
        variable = "${local.issuer}:sub"
        values   = ["system:serviceaccount:${var.namespace}:${var.service_account}"]
      }

      condition {
        test     = "StringEquals"
        variable = "${local.issuer}:aud"
        values   = ["sts.amazonaws.com"]
      }
    }
  }
}

resource "aws_iam_role" "controller" {
  name               = local.role_name
  description        = "Spot Guard in the cluster ${var.cluster_name}"
  assume_role_policy = data.aws_iam_policy_document.trust.json
  tags               = var.tags
}

resource "aws_iam_policy" "controller" {
  for_each = local.documents

  name   = "${local.role_name}-${each.key}"
  policy = replace(file("${path.module}/../iam/${each.value}"), "CLUSTER_NAME", var.cluster_name)
  tags   = var.tags
}

resource "aws_iam_role_policy_attachment" "controller" {
  for_each = aws_iam_policy.controller

  role       = aws_iam_role.controller.name
  policy_arn = each.value.arn
}

resource "aws_eks_pod_identity_association" "controller" {
  count = local.pod_identity ? 1 : 0

  cluster_name    = var.cluster_name
  namespace       = var.namespace
  service_account = var.service_account
  role_arn        = aws_iam_role.controller.arn
}

resource "aws_autoscaling_group_tag" "cluster" {
  for_each = var.groups

  autoscaling_group_name = each.value

  tag {
    key                 = "spotguard.dev/cluster"
    value               = var.cluster_name
    propagate_at_launch = false
  }
}
