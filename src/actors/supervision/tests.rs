use super::crash::Crash;
use super::*;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

const PART: &str = "Patient";

#[derive(Message)]
#[rtype(result = "u64")]
struct WhichLife;

struct Patient {
    lifeline: Lifeline,
    alive: Rc<Cell<usize>>,
    stopped: Rc<Cell<usize>>,
}

impl Actor for Patient {
    type Context = Context<Self>;

    fn stopped(&mut self, _: &mut Self::Context) {
        self.stopped.set(self.stopped.get() + 1);
    }
}

impl Drop for Patient {
    fn drop(&mut self) {
        self.alive.set(self.alive.get() - 1);
    }
}

answers_ping!(Patient);

impl Handler<WhichLife> for Patient {
    type Result = u64;

    fn handle(&mut self, _: WhichLife, _: &mut Self::Context) -> u64 {
        self.lifeline.incarnation()
    }
}

/// A supervised patient and what can be seen of it.
struct Ward {
    link: Link<Patient>,
    readiness: Readiness,
    shutdown: Shutdown,
    alive: Rc<Cell<usize>>,
    stopped: Rc<Cell<usize>>,
}

impl Ward {
    fn open() -> Self {
        let (alive, stopped) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let ward = Self {
            link: Link::new(PART),
            readiness: Readiness::default(),
            shutdown: Shutdown::new(),
            alive,
            stopped,
        };
        let (alive, stopped) = (Rc::clone(&ward.alive), Rc::clone(&ward.stopped));
        supervise(&ward.link, ward.readiness.clone(), &ward.shutdown, move |lifeline| {
            alive.set(alive.get() + 1);
            Patient { lifeline, alive: Rc::clone(&alive), stopped: Rc::clone(&stopped) }
        });
        ward
    }

    /// Harms the patient, and says how long the link did not answer.
    async fn harm(&self, harm: Crash) -> Duration {
        let life = self.link.ask(WhichLife).await.expect("is up before the harm");
        let from = Instant::now();
        self.link.send(harm);
        loop {
            match self.link.ask(WhichLife).await {
                Ok(now) if now > life => return from.elapsed(),
                _ => sleep(Duration::from_millis(1)).await,
            }
        }
    }

    fn restarts(&self, cause: RestartCause) -> u64 {
        self.link.restarts().get(&cause).copied().unwrap_or_default()
    }
}

/// Runs the test in an actix system on paused time.
fn paused(test: impl Future<Output = ()>) {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime")
    };
    actix::System::with_tokio_rt(runtime).block_on(test);
}

#[track_caller]
fn check_restart(harm: Crash, cause: RestartCause, within: Duration) {
    paused(async {
        let ward = Ward::open();
        let gap = ward.harm(harm).await;
        assert!(gap < within, "no answer for {gap:?}");
        assert_eq!(ward.link.restarts(), BTreeMap::from([(cause, 1)]));
        assert_eq!((ward.alive.get(), ward.stopped.get()), (1, 1), "the old life is over, once");
        assert_eq!(ward.link.ask(WhichLife).await, Ok(1));
    });
}

#[test]
fn a_panic_in_a_handler_restarts_at_once() {
    check_restart(Crash::PanicNow, RestartCause::Panicked, Duration::from_secs(1));
}

#[test]
fn a_panic_in_a_spawned_future_restarts_at_once() {
    check_restart(Crash::PanicLater, RestartCause::Panicked, Duration::from_secs(1));
}

#[test]
fn a_stop_restarts_at_once() {
    check_restart(Crash::Stop, RestartCause::Stopped, Duration::from_secs(1));
}

#[test]
fn a_stuck_actor_is_replaced_after_ping_and_answer_time() {
    check_restart(Crash::Hang, RestartCause::Stuck, PING_EVERY + ANSWER_WITHIN + Duration::from_secs(6));
}

#[test]
fn the_panic_is_known_with_its_message_and_place() {
    keep_actor_panics_quiet();
    let panic = guarded(|| panic!("out of {}", "luck")).expect_err("it panics");
    assert!(panic.starts_with("out of luck (src/actors/supervision/tests.rs:"), "{panic}");
}

#[test]
fn restarts_back_off_and_a_good_life_forgives() {
    paused(async {
        let ward = Ward::open();
        let mut gaps = Vec::new();
        for _ in 0..12 {
            gaps.push(ward.harm(Crash::PanicNow).await);
        }
        assert!(gaps[0] < Duration::from_millis(10), "{gaps:?}");
        for (gap, full) in gaps[1..].iter().zip([0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0, 30.0, 30.0])
        {
            let gap = gap.as_secs_f64();
            assert!((full / 2.0..full + 0.1).contains(&gap), "{gaps:?}");
        }
        sleep(GOOD_LIFE).await;
        assert!(ward.harm(Crash::PanicNow).await < Duration::from_millis(10));
    });
}

#[test]
fn too_many_restarts_turn_readiness_red_and_a_good_life_turns_it_green() {
    paused(async {
        let ward = Ward::open();
        for restart in 1..=MAX_RESTARTS + 1 {
            assert!(ward.readiness.reasons().is_empty(), "red before restart {restart}");
            ward.harm(Crash::Stop).await;
        }
        let reasons = ward.readiness.reasons();
        let told = &reasons[PART];
        assert_eq!(told.reason, UnreadyCode::RestartedTooOften);
        assert_eq!(told.message, "restarted 6 times within 5 minutes, last because it stopped");
        sleep(GOOD_LIFE - Duration::from_secs(1)).await;
        assert!(!ward.readiness.reasons().is_empty(), "a life of 59 s is not a good one yet");
        sleep(Duration::from_secs(2)).await;
        assert!(ward.readiness.reasons().is_empty());
    });
}

#[test]
fn restarts_far_apart_leave_readiness_green() {
    paused(async {
        let ward = Ward::open();
        for _ in 0..20 {
            ward.harm(Crash::Stop).await;
            sleep(Duration::from_secs(61)).await;
            assert!(ward.readiness.reasons().is_empty());
        }
        assert_eq!(ward.restarts(RestartCause::Stopped), 20);
    });
}

#[test]
fn shutdown_leaves_no_actor_and_another_set_lives_on() {
    paused(async {
        let (ending, staying) = (Ward::open(), Ward::open());
        ending.link.send(Crash::Hang);
        sleep(Duration::from_secs(1)).await;
        ending.shutdown.trigger();
        ending.shutdown.finished().await;
        assert_eq!((ending.alive.get(), ending.stopped.get()), (0, 1));
        assert_eq!(ending.link.ask(WhichLife).await, Err(LinkError::Down(PART)));
        assert!(!ending.link.is_up());
        sleep(Duration::from_secs(600)).await;
        assert_eq!(ending.alive.get(), 0, "nothing is restarted");
        assert_eq!(staying.link.ask(WhichLife).await, Ok(0));
    });
}

#[test]
fn shutdown_reaches_an_actor_that_waits_for_its_restart() {
    paused(async {
        let ward = Ward::open();
        for _ in 0..5 {
            ward.harm(Crash::Stop).await;
        }
        ward.link.send(Crash::Stop);
        sleep(Duration::from_millis(10)).await;
        assert!(!ward.link.is_up(), "it backs off");
        let from = Instant::now();
        ward.shutdown.trigger();
        ward.shutdown.finished().await;
        assert!(from.elapsed() < Duration::from_millis(10));
        assert_eq!(ward.alive.get(), 0);
    });
}

#[test]
fn a_factory_that_panics_is_tried_again() {
    paused(async {
        let (link, tries) = (Link::<Patient>::new(PART), Cell::new(0));
        let counts = Rc::new(Cell::new(1));
        supervise(&link, Readiness::default(), &Shutdown::new(), move |lifeline| {
            tries.set(tries.get() + 1);
            assert!(tries.get() > 2, "not yet");
            Patient { lifeline, alive: Rc::clone(&counts), stopped: Rc::default() }
        });
        assert_eq!(link.ask(WhichLife).await, Err(LinkError::Down(PART)));
        sleep(Duration::from_secs(1)).await;
        assert_eq!(link.ask(WhichLife).await, Ok(2));
        assert_eq!(link.restarts(), BTreeMap::from([(RestartCause::Panicked, 2)]));
    });
}

#[test]
fn messages_without_a_place_are_dropped_and_counted() {
    paused(async {
        let (reports, heard) = std::sync::mpsc::channel();
        let empty = Link::<Patient>::reporting(PART, move |event| reports.send(event).expect("a listener"));
        empty.send(Crash::Stop);
        empty.carrying().send(Crash::Stop);
        assert_eq!(empty.dropped(), 2);
        assert_eq!(heard.try_iter().collect::<Vec<_>>(), [LinkEvent::Dropped; 2]);

        let ward = Ward::open();
        ward.link.send(Crash::Hang);
        sleep(Duration::from_millis(1)).await;
        for _ in 0..MAILBOX_CAPACITY + 10 {
            ward.link.send(Crash::Hang);
        }
        assert_eq!(ward.link.dropped(), 10);
    });
}

#[test]
fn questions_are_bounded_in_time_and_number() {
    paused(async {
        let ward = Ward::open();
        ward.link.send(Crash::Hang);
        let mut questions: Vec<_> = (0..MAX_QUESTIONS).map(|_| Box::pin(ward.link.ask(WhichLife))).collect();
        for question in &mut questions {
            assert!(futures::poll!(question).is_pending());
        }
        assert_eq!(ward.link.ask(WhichLife).await, Err(LinkError::Full(PART)));
        for answer in futures::future::join_all(questions).await {
            assert_eq!(answer, Err(LinkError::Timeout(PART)));
        }
        assert_eq!(ward.link.ask(WhichLife).await, Err(LinkError::Timeout(PART)));
    });
}
