//! What the headers of the actors say is so.

use std::collections::BTreeSet;

/// The actors and their files.
const ACTORS: [(&str, &str); 7] = [
    ("AsgScaler", include_str!("asg_scaler.rs")),
    ("Drainer", include_str!("drainer.rs")),
    ("FallbackTracker", include_str!("fallback_tracker.rs")),
    ("HealthMonitor", include_str!("health_monitor.rs")),
    ("ImdsPoller", include_str!("imds_poller.rs")),
    ("Janitor", include_str!("janitor.rs")),
    ("QueuePoller", include_str!("queue_poller.rs")),
];
const MESSAGES: &str = include_str!("messages.rs");

/// What the header says behind this word.
fn line<'a>(file: &'a str, word: &str) -> &'a str {
    let header = file.lines().take_while(|line| line.starts_with("//!"));
    let found: Vec<&str> = header.filter_map(|line| line.strip_prefix(&format!("//! - {word}: "))).collect();
    assert_eq!(found.len(), 1, "{word}");
    found[0]
}

/// The types that a line of a header links to.
fn links(line: &str) -> BTreeSet<&str> {
    line.split("[`").skip(1).filter_map(|rest| rest.split("`]").next()).collect()
}

/// Each public message with its sender and its receivers.
fn messages() -> Vec<(&'static str, &'static str, Vec<&'static str>)> {
    let routes = MESSAGES.split(" → ").count() - 1;
    let mut found = Vec::new();
    let mut route = None;
    for line in MESSAGES.lines() {
        if let Some((from, to)) = line.split_once(" → ") {
            let from = from.rsplit(' ').next().expect("a sender");
            route = Some((from, to.trim_end_matches('.').split(", ").collect()));
        }
        if let Some(name) = line.strip_prefix("pub struct ").and_then(|rest| rest.split([' ', ';']).next())
            && let Some((from, to)) = route.take()
        {
            found.push((name, from, to));
        }
    }
    assert_eq!(found.len(), routes, "each route stands above its message");
    found
}

/// Interruptions come by two ways.
#[test]
fn each_box_stands_in_exactly_one_header_but_the_first_in_two() {
    let mut boxes: Vec<&str> = ACTORS.iter().flat_map(|(_, file)| line(file, "Boxes").split(", ")).collect();
    boxes.sort_unstable();
    assert_eq!(boxes.iter().filter(|number| **number == "1").count(), 2);
    boxes.dedup_by(|one, other| one == other && *one == "1");
    let mut flow = ["1", "2", "3", "3.1", "3.2", "4", "5", "6", "7", "8", "9", "10", "11", "12"];
    flow.sort_unstable();
    assert_eq!(boxes, flow);
}

#[test]
fn each_message_goes_from_the_sender_to_the_receivers_that_it_names() {
    let messages = messages();
    assert!(!messages.is_empty());
    for (actor, file) in ACTORS {
        let heard: BTreeSet<&str> =
            messages.iter().filter(|(_, _, to)| to.contains(&actor)).map(|(name, ..)| *name).collect();
        let sent: BTreeSet<&str> =
            messages.iter().filter(|(_, from, _)| *from == actor).map(|(name, ..)| *name).collect();
        assert_eq!(links(line(file, "Hears")), heard, "{actor}");
        assert_eq!(links(line(file, "Sends")), sent, "{actor}");
        for (name, ..) in &messages {
            let (handles, holds) =
                (format!("impl Handler<{name}> for {actor}"), format!("MessageLink<{name}>"));
            assert_eq!(file.contains(&handles), heard.contains(name), "{actor} and {name}");
            assert_eq!(file.contains(&holds), sent.contains(name), "{actor} and {name}");
        }
    }
}

#[test]
fn no_actor_imports_another_one() {
    for (actor, file) in ACTORS {
        for (other, _) in ACTORS.iter().filter(|(other, _)| *other != actor) {
            let module: String = other
                .chars()
                .enumerate()
                .flat_map(|(at, letter)| {
                    let underscore = (at > 0 && letter.is_uppercase()).then_some('_');
                    underscore.into_iter().chain(letter.to_lowercase())
                })
                .collect();
            assert!(!file.contains(&format!("actors::{module}")), "{actor} imports {other}");
        }
    }
}
