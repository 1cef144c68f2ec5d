use super::*;
use crate::group::{FailedActivity, FailureClass, GroupView, Lifecycle};
use crate::limits::Pause;
use crate::testing::{leaked, serving_group};
use crate::time::since;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).expect("a time")
}

fn group(name: &str, desired: i32, ids: &[&str]) -> GroupView {
    serving_group(name, desired, ids, at(0))
}

fn fails(group: &mut GroupView, seconds: i64) {
    let (class, message) = (FailureClass::Capacity, "no capacity".to_owned());
    group.failures.push(FailedActivity { started_at: at(seconds), zone: None, class, message });
}

/// A recommendation at 0 in a pool that stands in on advice; a launch of the Spot group fails at 60.
struct Advised {
    cover: CoverSpec,
    ignored: bool,
    spec: ShortfallSpec,
    view: PoolView,
    records: Vec<(bool, ReplacementStatus)>,
    starts: Starts,
    now: i64,
}

impl Advised {
    fn new() -> Self {
        let mut spot = group("spot", 3, &["i-1", "i-2", "i-3"]);
        fails(&mut spot, 60);
        Self {
            cover: CoverSpec { on_advice: OnAdvice::Failure },
            ignored: false,
            spec: ShortfallSpec::default(),
            view: PoolView { spot, on_demand: group("on-demand", 0, &[]) },
            records: Vec::new(),
            starts: Starts::default(),
            now: 61,
        }
    }

    /// When the launch failed that a stand-in answers.
    fn answers<'a>(&'a self) -> Option<i64> {
        let of =
            |(is_place, status): &'a (bool, ReplacementStatus)| OwnRecord { is_place: *is_place, status };
        let known: Vec<OwnRecord<'_>> = self.records.iter().map(of).collect();
        let failed_at = advised(&Advice {
            ignored: self.ignored,
            cover: self.cover,
            spec: &self.spec,
            policy: &Policy::default(),
            view: &self.view,
            known: &known,
            starts: &self.starts,
            instance_id: leaked("i-1"),
            noticed_at: at(0),
            node_created: Some(at(-86_400)),
            now: at(self.now),
        });
        failed_at.map(|failed_at| failed_at.as_second() - at(0).as_second())
    }

    /// Another record of the pool that stands in on advice since then.
    fn stood_in_for(&mut self, since: i64) {
        let fresh = ReplacementStatus {
            notice: Some(NoticeKind::RebalanceRecommendation),
            started_at: Some(at(since)),
            ..ReplacementStatus::default()
        };
        let status = open_on_advice(fresh, &"node".into(), at(since), &self.view, at(since));
        assert!(status.stands_in_on_advice());
        self.records.push((false, status));
    }
}

#[test]
fn on_advice_each_launch_that_failed_since_is_answered_once() {
    let mut stage = Advised::new();
    assert_eq!(stage.answers(), Some(60));
    stage.stood_in_for(61);
    assert_eq!(stage.answers(), None, "another record answers it");
    fails(&mut stage.view.spot, 90);
    assert_eq!(stage.answers(), Some(90), "and the next one is free");
    stage.now = 691;
    assert_eq!(stage.answers(), None, "an old failure says nothing");
    let mut early = Advised::new();
    early.view.spot.failures[0].started_at = at(-10);
    assert_eq!(early.answers(), None, "it failed before the notice");
    let mut throttled = Advised::new();
    throttled.view.spot.failures[0].class = FailureClass::Throttle;
    assert_eq!(throttled.answers(), None);
}

#[test]
fn on_advice_one_zone_without_capacity_is_not_the_market() {
    let mut stage = Advised::new();
    let in_zone = |stage: &mut Advised, at: i64, zone: &str| {
        fails(&mut stage.view.spot, at);
        stage.view.spot.failures.last_mut().expect("a failure").zone = Some(zone.to_owned());
    };
    stage.view.spot.zones = ["a", "b"].map(str::to_owned).to_vec();
    stage.view.spot.failures.clear();
    in_zone(&mut stage, 60, "a");
    assert_eq!(stage.answers(), None, "the group tries the next zone");
    stage.now = 90;
    assert_eq!(stage.answers(), Some(60), "it has tried them by now");
    stage.view.spot.unlisted_launches = 1;
    assert_eq!(stage.answers(), None, "an instance is on its way in");
    in_zone(&mut stage, 89, "b");
    assert_eq!(stage.answers(), Some(89), "no zone is left");
}

#[test]
fn on_advice_nothing_begins_that_the_pool_or_its_limits_do_not_want() {
    type Change = fn(&mut Advised);
    let changes: [(&str, Change); 9] = [
        ("Never is the default", |stage| stage.cover = CoverSpec::default()),
        ("the pool ignores advice", |stage| stage.ignored = true),
        ("no stand-ins are wanted", |stage| stage.spec.max_stand_ins = Some(0)),
        ("two are the limit of a small pool", |stage| (stage.stood_in_for(10), stage.stood_in_for(20)).0),
        ("a place counts, too", |stage| {
            stage.spec.max_stand_ins = Some(1);
            stage.records.push((true, ReplacementStatus::default()));
        }),
        ("the on-demand group is at its maximum", |stage| stage.view.on_demand.max = 0),
        ("others are under way", |stage| stage.starts.full = Some(1)),
        ("a person has put it into Standby", |stage| {
            stage.view.spot.instances[0].lifecycle = Lifecycle::Standby;
        }),
        ("the pool is paused", |stage| stage.starts.pause = Some(Pause::Pool)),
    ];
    for (what, change) in changes {
        let mut stage = Advised::new();
        change(&mut stage);
        assert_eq!(stage.answers(), None, "{what}");
    }
}

#[test]
fn what_is_read_for_advice_stays_the_same_for_ten_minutes() {
    let of = |seconds: i64| failures_matter_to_advice_since(at(seconds));
    assert_eq!(of(0), of(599));
    assert_ne!(of(599), of(600));
    for seconds in 0..700 {
        assert!(since(of(seconds), at(seconds)) >= Duration::from_secs(600), "{seconds}");
    }
}
