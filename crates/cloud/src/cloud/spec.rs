//! What a scenario sets: groups, capacity, boot times, failures and the timings of the cloud.

use std::time::Duration;

/// How an instance is bought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Market {
    /// Spare capacity, which AWS may take back on two minutes' notice.
    Spot,
    /// Paid by the second, kept until it is terminated.
    OnDemand,
}

impl Market {
    /// As IMDS `instance-life-cycle` spells it.
    #[must_use]
    pub fn life_cycle(self) -> &'static str {
        match self {
            Self::Spot => "spot",
            Self::OnDemand => "on-demand",
        }
    }

    /// As `LaunchInstances` spells it in `MarketType`.
    #[must_use]
    pub fn market_type(self) -> &'static str {
        match self {
            Self::Spot => "Spot",
            Self::OnDemand => "OnDemand",
        }
    }
}

/// How many more instances a market gives in one zone, or in the whole group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Supply {
    /// Any number.
    Unlimited,
    /// This many more; a terminated instance does not give its place back.
    Left(u32),
    /// The market is dry.
    None,
}

/// How long an instance takes from the launch to a Ready node. The steps follow one another.
#[derive(Clone, Copy, Debug)]
pub struct BootTimes {
    /// From `Pending` to `InService`.
    pub launch: Duration,
    /// From `InService` until the kubelet has registered the node (not Ready yet).
    pub node_join: Duration,
    /// From the registration until the node is Ready.
    pub node_ready: Duration,
}

impl Default for BootTimes {
    fn default() -> Self {
        Self {
            launch: Duration::from_secs(25),
            node_join: Duration::from_secs(20),
            node_ready: Duration::from_secs(15),
        }
    }
}

/// `MixedInstancesPolicy.InstancesDistribution` (API_InstancesDistribution).
#[derive(Clone, Debug)]
pub struct MixedPolicy {
    /// `OnDemandBaseCapacity`; AWS's default is 0.
    pub on_demand_base: u32,
    /// `OnDemandPercentageAboveBaseCapacity`, 0 to 100; AWS's default is 100.
    pub on_demand_percentage_above_base: u32,
    /// `SpotAllocationStrategy`, for example `price-capacity-optimized`.
    pub spot_allocation_strategy: String,
}

/// One Auto Scaling group.
#[derive(Clone, Debug)]
pub struct GroupSpec {
    /// `AutoScalingGroupName`.
    pub name: String,
    /// What its instances are, unless `mixed` decides.
    pub market: Market,
    /// Availability Zones, for example `us-east-1a`; one subnet each.
    pub zones: Vec<String>,
    /// EC2 instance type.
    pub instance_type: String,
    /// `MinSize`.
    pub min: u32,
    /// `MaxSize`.
    pub max: u32,
    /// `DesiredCapacity`; this many instances exist from the start.
    pub desired: u32,
    /// How long a new instance takes.
    pub boot: BootTimes,
    /// Launch template (true) or launch configuration (false).
    pub launch_template: bool,
    /// The version of its launch template that it launches from.
    pub template_version: u32,
    /// `CapacityRebalance`: the group itself replaces an instance under a rebalance recommendation.
    pub capacity_rebalance: bool,
    /// Whether the AZRebalance process evens out the zones.
    pub az_rebalance: bool,
    /// `Operator.Principal`: the service that alone may change the group.
    pub operator: Option<String>,
    /// Suspended processes: name and reason.
    pub suspended: Vec<(String, String)>,
    /// Whether the group has a warm pool (described only, never filled).
    pub warm_pool: bool,
    /// The mixed instances policy, if the group has one.
    pub mixed: Option<MixedPolicy>,
    /// `DesiredCapacityType`, if it counts something else than instances.
    pub capacity_type: Option<&'static str>,
    /// `WeightedCapacity` of its instance type in the mixed instances policy, if it has one.
    pub weight: Option<u32>,
    /// Tags of the group.
    pub tags: Vec<(String, String)>,
    /// Heartbeat timeout of a lifecycle hook on termination, if the group has one.
    pub termination_hook: Option<Duration>,
    /// `MaxInstanceLifetime`, if the group has one. It is told and not enforced: it is a day at least (API
    /// Reference, AutoScalingGroup).
    pub max_instance_lifetime: Option<Duration>,
    /// Whether what that hook holds stays when the hook was abandoned or has timed out (User Guide, "Control
    /// instance retention").
    pub retains: bool,
    /// `NewInstancesProtectedFromScaleIn`.
    pub protect_new_instances: bool,
    /// Labels of its nodes, besides the well-known ones.
    pub node_labels: Vec<(String, String)>,
    /// CPU of a node, thousandths of a core.
    pub cpu_millis: u64,
    /// Memory of a node, bytes.
    pub memory_bytes: u64,
    /// Most pods that a node runs.
    pub pods_per_node: u32,
    /// Whether `LaunchInstances` works on this group.
    pub launch_instances: bool,
}

impl GroupSpec {
    /// A group of two m5.xlarge in two zones of us-east-1, from 0 to 10.
    #[must_use]
    pub fn new(name: &str, market: Market) -> Self {
        Self {
            name: name.into(),
            market,
            zones: vec!["us-east-1a".into(), "us-east-1b".into()],
            instance_type: "m5.xlarge".into(),
            min: 0,
            max: 10,
            desired: 2,
            boot: BootTimes::default(),
            launch_template: true,
            template_version: 1,
            capacity_rebalance: false,
            az_rebalance: false,
            operator: None,
            suspended: Vec::new(),
            warm_pool: false,
            mixed: None,
            capacity_type: None,
            weight: None,
            tags: Vec::new(),
            termination_hook: None,
            retains: false,
            max_instance_lifetime: None,
            protect_new_instances: false,
            node_labels: Vec::new(),
            cpu_millis: 4_000,
            memory_bytes: 16 << 30,
            pods_per_node: 58,
            launch_instances: true,
        }
    }

    /// The same as the group of an EKS managed node group: its tags, the label of its nodes, the hook by
    /// which EKS drains, and Capacity Rebalancing for Spot (EKS User Guide, "Managed node groups"). The hook's
    /// timeout is 1800 s.
    #[must_use]
    pub fn of_managed_node_group(mut self, name: &str) -> Self {
        let names = [("eks:cluster-name", "prod"), ("eks:nodegroup-name", name)];
        self.tags.extend(names.map(|(key, value)| (key.to_owned(), value.to_owned())));
        self.node_labels.push(("eks.amazonaws.com/nodegroup".to_owned(), name.to_owned()));
        self.termination_hook = Some(Duration::from_secs(1800));
        self.capacity_rebalance = self.market == Market::Spot;
        self
    }
}

/// Why a launch fails, in AWS's words (Amazon EC2 Auto Scaling User Guide, "instance launch failures").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchFailure {
    /// `ErrorCode` of `LaunchInstances`.
    pub code: String,
    /// `ErrorMessage` of `LaunchInstances`.
    pub message: String,
    /// `StatusMessage` of the scaling activity.
    pub status_message: String,
    /// `StatusCode` of the scaling activity: `Failed` or `Cancelled`.
    pub status_code: &'static str,
    /// Codes and messages of the other instance types in the answer of `LaunchInstances` (API Reference,
    /// LaunchInstancesError: one per type and zone).
    pub beside: Vec<(String, String)>,
}

impl LaunchFailure {
    /// A failure of EC2 with its code, as Auto Scaling wraps it.
    #[must_use]
    pub fn fleet(market: Market, code: &str, message: &str) -> Self {
        let bought = match market {
            Market::Spot => "Spot",
            Market::OnDemand => "On-Demand",
        };
        Self {
            code: code.into(),
            message: message.into(),
            status_message: format!(
                "Could not launch {bought} Instances. {code} - {message} Launching EC2 instance failed."
            ),
            status_code: "Failed",
            beside: Vec::new(),
        }
    }

    /// Any text, without a code of EC2 in it.
    #[must_use]
    pub fn text(code: &str, text: &str) -> Self {
        Self {
            code: code.into(),
            message: text.into(),
            status_message: text.into(),
            status_code: "Failed",
            beside: Vec::new(),
        }
    }

    /// What a dry market says.
    #[must_use]
    pub fn dry(market: Market, instance_type: &str, zone: &str) -> Self {
        match market {
            Market::Spot => Self::fleet(
                market,
                "UnfulfillableCapacity",
                "There is no capacity available that matches your request.",
            ),
            Market::OnDemand => Self::fleet(
                market,
                "InsufficientInstanceCapacity",
                &format!(
                    "We currently do not have sufficient {instance_type} capacity in the Availability Zone you \
                     requested ({zone})."
                ),
            ),
        }
    }

    /// The account's vCPU quota is used up.
    #[must_use]
    pub fn vcpu_limit(market: Market, limit: u32) -> Self {
        Self::fleet(
            market,
            "VcpuLimitExceeded",
            &format!(
                "You have requested more vCPU capacity than your current vCPU limit of {limit} allows for the \
                 instance bucket that the specified instance type belongs to."
            ),
        )
    }

    /// The launch template is wrong.
    #[must_use]
    pub fn invalid_parameter_combination(market: Market, message: &str) -> Self {
        Self::fleet(market, "InvalidParameterCombination", message)
    }

    /// The limit of running instances is reached.
    #[must_use]
    pub fn already_running(running: u32) -> Self {
        Self::text(
            "InstanceLimitExceeded",
            &format!("{running} instance(s) are already running. Launching EC2 instance failed."),
        )
    }

    /// The same failure, with that of another instance type in the same answer.
    #[must_use]
    pub fn beside(mut self, code: &str, message: &str) -> Self {
        self.beside.push((code.into(), message.into()));
        self
    }

    /// The same failure with the activity ending as `Cancelled`.
    #[must_use]
    pub fn cancelled(mut self) -> Self {
        self.status_code = "Cancelled";
        self
    }
}

/// How a launched instance goes wrong after AWS has accepted the launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootFault {
    /// It dies while `Pending`; the activity fails.
    DiesPending,
    /// `InService`, but no node ever joins.
    NeverJoins,
    /// The node joins, but is never Ready.
    NeverReady,
    /// The node joins and is Ready, and keeps its start-up taint.
    KeepsTaint,
    /// The node joins cordoned (kubelet, `--register-schedulable=false`), is Ready, and nobody uncordons it.
    StaysCordoned,
    /// A lifecycle hook holds it in `Pending:Wait` for so long, then lets it on (User Guide, "How lifecycle
    /// hooks work").
    HookHolds(Duration),
    /// A lifecycle hook holds it in `Pending:Wait` for so long and ends with `ABANDON`: it is terminated.
    HookAbandons(Duration),
}

/// How events come through the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NoticeQueue {
    /// The longest delay of a message.
    pub late_by: Duration,
    /// Whether every message comes twice: standard queues deliver at least once.
    pub twice: bool,
    /// After so many receipts a message goes to the dead-letter queue, if there is one.
    pub max_receives: Option<u32>,
}

/// The timings and the undocumented behaviours of the cloud.
#[derive(Clone, Debug)]
pub struct CloudSettings {
    /// From a change of desired capacity to what the group does about it.
    pub reaction: Duration,
    /// From the beginning of a launch to its instance, or its failure. Until then only the activity shows it.
    pub launch_takes: Duration,
    /// From the start of a termination until the machine has stopped.
    pub machine_stop: Duration,
    /// From the start of a termination until the group no longer lists the instance.
    pub termination: Duration,
    /// From the stop of a machine until its Node object is removed (cloud-controller-manager).
    pub node_removal: Duration,
    /// Whether the Node objects of instances that are gone stay for ever: there is no cloud controller, or a
    /// finalizer holds them (Kubernetes, "Cloud Controller Manager").
    pub nodes_stay: bool,
    /// Whether a new instance gets the address of one that is gone, and with it the name of its node (EC2
    /// User Guide, "Private DNS hostnames": the name follows from the address).
    pub names_come_back: bool,
    /// How long a Node has no `spec.providerID` after it has joined: the cloud controller sets it.
    pub provider_id_delay: Duration,
    /// From the loss of an instance until the group's health check sees it.
    pub loss_detection: Duration,
    /// How old the picture is at most that a Describe call gives. Each call draws its own age, so a later
    /// one may give an older picture (EC2 API Reference, "Eventual consistency").
    pub listing_lag: Duration,
    /// From an interruption notice to the interruption (EC2 User Guide, "Spot Instance interruption
    /// notices").
    pub interruption_notice: Duration,
    /// Pause after the first failed launch; doubles with each further one.
    pub retry_first: Duration,
    /// Longest pause between failed launches.
    pub retry_max: Duration,
    /// Failing launches for this long suspend the Launch process (User Guide, "Suspend and resume").
    pub suspend_launch_after: Duration,
    /// Whether the endpoint knows `LaunchInstances` at all; if not, `InvalidAction`.
    pub launch_instances: bool,
    /// After how long a successful `LaunchInstances` raises desired capacity, if it does; AWS does not
    /// document it.
    pub launch_instances_raises_desired: Option<Duration>,
    /// Whether `LaunchInstances` is refused above `MaxSize`; AWS does not document it.
    pub launch_instances_enforces_max: bool,
    /// How long a successful `LaunchInstances` keeps its caller waiting; it takes effect before.
    pub launch_instances_latency: Duration,
    /// How long the answer to a `ClientToken` is remembered (API_LaunchInstances).
    pub client_token_life: Duration,
    /// How events come through a queue, if there is one.
    pub notice_queue: Option<NoticeQueue>,
}

impl Default for CloudSettings {
    fn default() -> Self {
        Self {
            reaction: Duration::from_millis(500),
            launch_takes: Duration::ZERO,
            machine_stop: Duration::from_secs(5),
            termination: Duration::from_secs(20),
            node_removal: Duration::from_secs(5),
            nodes_stay: false,
            names_come_back: false,
            provider_id_delay: Duration::ZERO,
            loss_detection: Duration::from_secs(15),
            listing_lag: Duration::ZERO,
            interruption_notice: Duration::from_secs(120),
            retry_first: Duration::from_secs(30),
            retry_max: Duration::from_secs(300),
            suspend_launch_after: Duration::from_secs(24 * 3600),
            launch_instances: true,
            launch_instances_raises_desired: Some(Duration::ZERO),
            launch_instances_enforces_max: true,
            launch_instances_latency: Duration::from_secs(1),
            client_token_life: Duration::from_secs(8 * 3600),
            notice_queue: None,
        }
    }
}

/// How an instance's metadata service behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImdsMode {
    /// As documented.
    Normal,
    /// As documented, but each read of a notice gives another notice time, as amazon-ec2-metadata-mock does.
    RestlessNoticeTime,
    /// 200 with a body that is not what was asked for.
    Garbage,
    /// Every token is refused with 401.
    Unauthorized,
    /// This status for everything.
    Status(u16),
    /// A proxy stands in front of it: 404 to everything, but perhaps not to the request for a token.
    Proxy {
        /// Whether the request for a token passes it.
        gives_token: bool,
    },
    /// No answer at all.
    Silent,
    /// IMDS is turned off: 403 for everything.
    Disabled403,
}
