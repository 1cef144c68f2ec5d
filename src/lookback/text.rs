//! A look back as it is read on a terminal of 80 columns. Pure: a report in, text out.

use crate::telemetry::escape::escaped;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use spot_guard_core::group::FailureClass;
use spot_guard_core::lookback::{
    Figures, Gap, GapKind, LookbackReport, LossReason, Occasion, PlotCell, WeekReport, WouldDo, WouldHave,
};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Columns of a terminal.
const WIDTH: usize = 80;
/// From how many instances on a plot shows the same letter.
const MANY: u32 = 9;

/// The report as text.
pub(super) fn report(report: &LookbackReport) -> String {
    let mut text = String::new();
    let mut line = |words: &str| {
        text.push_str(&escaped(words));
        text.push('\n');
    };
    line(&format!("Spot group {}, on-demand group {}", report.spot_group, report.on_demand_group));
    let (from, to, baseline) = (minute(report.from), minute(report.to), report.baseline);
    line(&format!("{from} to {to} (UTC), on-demand baseline {baseline}"));
    line("");
    figures(report).iter().for_each(|words| line(words));
    reasons(&report.total).iter().for_each(|words| line(words));
    let weeks: Vec<String> =
        report.weeks.iter().filter_map(of_week).flat_map(|week| wrapped(&week)).collect();
    if !weeks.is_empty() {
        line("");
        line("By week:");
    }
    weeks.iter().for_each(|words| line(words));
    for week in report.weeks.iter().filter(|week| week.cells.iter().any(|cell| cell.is_known)) {
        line("");
        plot(week).iter().for_each(|words| line(words));
    }
    line("");
    line("A column is three hours, a number is how many, + is more than nine.");
    line("OD is on-demand; its plot is above the baseline: ! Spot failed, ? nobody tried.");
    line("");
    line("What Spot Guard would have done, as far as the market allowed:");
    let would_have = would_have(&report.would_have);
    would_have.iter().flat_map(|words| words.lines()).for_each(&mut line);
    if would_have.is_empty() {
        line("  nothing: no interruption and no failed launch is on record");
    }
    line("");
    line("What the record does not show:");
    let never = "pods, disruption budgets and limits of a pool: they may hold a return for longer";
    let gaps = report.gaps.iter().map(gap).chain([never.to_owned()]);
    gaps.flat_map(|found| wrapped(&found)).for_each(|words| line(&words));
    text
}

fn shown(at: Timestamp, form: &str) -> String {
    at.to_zoned(TimeZone::UTC).strftime(form).to_string()
}

fn minute(at: Timestamp) -> String {
    shown(at, "%Y-%m-%d %H:%M")
}

fn failed(counts: &BTreeMap<FailureClass, u32>) -> u32 {
    counts.values().sum()
}

/// A row for each week, and one for all.
fn figures(report: &LookbackReport) -> Vec<String> {
    let head = [
        format!(
            "{:19}{:>12}{:>16}{:>33}",
            "             inter-", "failed", "instance-hours", "on-demand hours above baseline"
        ),
        format!(
            "{:19}{:>12}{:>16}{:>11}{:>11}{:>11}",
            "               rup-", "launches", "missing", "Spot could", "Spot", "not"
        ),
        format!(
            "{:19}{:>7}{:>5}{:>9}{:>7}{:>11}{:>11}{:>11}",
            "week of       tions", "Spot", "OD", "Spot", "OD", "serve", "failed", "known"
        ),
    ];
    let row = |name: &str, figures: &Figures| {
        let above = figures.on_demand_above_baseline;
        format!(
            "{name:<12}{:>7}{:>7}{:>5}{:>9.1}{:>7.1}{:>11.1}{:>11.1}{:>11.1}",
            figures.interruptions,
            failed(&figures.spot_launches_failed),
            failed(&figures.on_demand_launches_failed),
            figures.spot_unmet.instance_hours,
            figures.on_demand_unmet.instance_hours,
            above.spot_could_serve,
            above.spot_failed,
            above.not_known,
        )
    };
    let mut lines = Vec::from(head);
    lines.extend(report.weeks.iter().map(|week| {
        let name = shown(week.monday, "%Y-%m-%d");
        if is_on_record(week) { row(&name, &week.figures) } else { format!("{name:<12}  not on record") }
    }));
    lines.push(row("sum", &report.total));
    let (spot, on_demand) = (report.total.spot_unmet.hours, report.total.on_demand_unmet.hours);
    lines.push(format!(
        "Desired capacity was not met in {spot:.1} h (Spot) and {on_demand:.1} h (on-demand)."
    ));
    lines
}

fn is_on_record(week: &WeekReport) -> bool {
    week.spot_known_hours + week.on_demand_known_hours > 0.0
}

/// A week by reason, if it is on record.
fn of_week(week: &WeekReport) -> Option<String> {
    let figures = &week.figures;
    let lost = figures.lost_by_reason.iter();
    let lost = lost.map(|(reason, count)| format!("{count} {}", loss_in_short(*reason))).collect();
    let failed = |counts: &BTreeMap<FailureClass, u32>| {
        counts.iter().map(|(class, count)| format!("{count} {}", in_short(*class))).collect()
    };
    let unmet = [(figures.spot_unmet.hours, "Spot"), (figures.on_demand_unmet.hours, "on-demand")];
    let unmet = unmet.into_iter().filter(|(hours, _)| *hours > 0.0);
    let unmet = unmet.map(|(hours, group)| format!("{hours:.1} h of {group}")).collect();
    let all: [(&str, Vec<String>); 4] = [
        ("lost", lost),
        ("failed launches of Spot", failed(&figures.spot_launches_failed)),
        ("failed launches of on-demand", failed(&figures.on_demand_launches_failed)),
        ("desired capacity not met", unmet),
    ];
    let told = all.into_iter().filter(|(_, counts)| !counts.is_empty());
    let told: Vec<String> = told.map(|(what, counts)| format!("{what}: {}", counts.join(", "))).collect();
    let told = if told.is_empty() { "nothing".to_owned() } else { told.join("; ") };
    is_on_record(week).then(|| format!("{}: {told}", shown(week.monday, "%Y-%m-%d")))
}

/// The sums by reason.
fn reasons(total: &Figures) -> Vec<String> {
    let mut lines = Vec::new();
    let mut list = |title: &str, counts: Vec<(String, u32)>| {
        if !counts.is_empty() {
            lines.extend([String::new(), title.to_owned()]);
            lines.extend(counts.into_iter().map(|(reason, count)| format!("{count:>6}  {reason}")));
        }
    };
    let lost = total.lost_by_reason.iter().map(|(reason, count)| (loss(*reason).to_owned(), *count));
    list("Lost Spot instances by reason:", lost.collect());
    let by_class = |counts: &BTreeMap<FailureClass, u32>| {
        counts.iter().map(|(class, count)| (failure(*class).to_owned(), *count)).collect()
    };
    list("Failed launches of Spot by reason:", by_class(&total.spot_launches_failed));
    list("Failed launches of on-demand by reason:", by_class(&total.on_demand_launches_failed));
    lines
}

fn loss(reason: LossReason) -> &'static str {
    match reason {
        LossReason::SpotInterruption => "interrupted by Spot",
        LossReason::Rebalance => "replaced by its group at an interruption notice or a recommendation",
        LossReason::TerminatedOrStopped => "found terminated or stopped by a health check",
        LossReason::Unhealthy => "another health check failed (no interruption)",
    }
}

fn loss_in_short(reason: LossReason) -> &'static str {
    match reason {
        LossReason::SpotInterruption => "interrupted",
        LossReason::Rebalance => "rebalanced",
        LossReason::TerminatedOrStopped => "terminated or stopped",
        LossReason::Unhealthy => "unhealthy",
    }
}

fn failure(class: FailureClass) -> &'static str {
    match class {
        FailureClass::Capacity => "out of capacity",
        FailureClass::Quota => "a quota of the account",
        FailureClass::Configuration => "the configuration",
        FailureClass::Refused => "refused by EC2",
        FailureClass::Unusable => "its node could not be used",
        FailureClass::Throttle => "throttled",
        FailureClass::Unknown => "not known",
    }
}

fn in_short(class: FailureClass) -> &'static str {
    match class {
        FailureClass::Quota => "quota",
        FailureClass::Configuration => "configuration",
        FailureClass::Refused => "refused",
        FailureClass::Unusable => "node unusable",
        FailureClass::Capacity | FailureClass::Throttle | FailureClass::Unknown => failure(class),
    }
}

/// A week in columns of three hours.
fn plot(week: &WeekReport) -> Vec<String> {
    let row = |name: &str, letter: &dyn Fn(&PlotCell) -> char| {
        let letters = week.cells.iter().map(|cell| if cell.is_known { letter(cell) } else { ' ' });
        format!("{name:<16}{}", letters.collect::<String>()).trim_end().to_owned()
    };
    let above = |cell: &PlotCell| {
        let (could, failed, unknown) = (
            cell.above_baseline.spot_could_serve,
            cell.above_baseline.spot_failed,
            cell.above_baseline.not_known,
        );
        if could + failed + unknown <= 0.0 {
            '.'
        } else if could >= failed.max(unknown) {
            digit(could.ceil())
        } else if failed >= unknown {
            '!'
        } else {
            '?'
        }
    };
    let days = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"].map(|day| format!("{day:<8}"));
    vec![
        format!("{:<16}{}", shown(week.monday, "%Y-%m-%d"), days.concat()).trim_end().to_owned(),
        row("interruptions", &|cell| digit(cell.interruptions.into())),
        row("failed launches", &|cell| digit(cell.launches_failed.into())),
        row("Spot missing", &|cell| digit(cell.missing.ceil())),
        row("on-demand", &above),
    ]
}

/// How many, as one letter.
fn digit(count: f64) -> char {
    let digits =
        (1..=MANY).find(|digit| count <= f64::from(*digit)).and_then(|digit| char::from_digit(digit, 10));
    if count <= 0.0 { '.' } else { digits.unwrap_or('+') }
}

/// A line for each, and one for several of the same that follow one another.
fn would_have(found: &[WouldHave]) -> Vec<String> {
    let mut lines = Vec::new();
    let is_like = |one: &WouldHave, other: &WouldHave| {
        one.occasion == Occasion::LaunchFailed
            && (one.occasion, one.action, one.class) == (other.occasion, other.action, other.class)
            && one.instances == other.instances
    };
    for same in found.chunk_by(is_like) {
        let [first, .., last] = same else {
            lines.extend(same.iter().map(|only| would_have_line(only, "")));
            continue;
        };
        let until = shown(
            last.at,
            if shown(first.at, "%F") == shown(last.at, "%F") { "%H:%M" } else { "%m-%d %H:%M" },
        );
        lines.push(would_have_line(first, &format!("{} times until {until}", same.len())));
    }
    lines
}

fn would_have_line(found: &WouldHave, times: &str) -> String {
    let about = match found.occasion {
        Occasion::Interruption => {
            format!("interruption of {}", found.instance.as_deref().unwrap_or("an instance"))
        }
        Occasion::LaunchFailed => {
            let class = found.class.map_or("not known", in_short);
            format!("launch failed, {class}{}{times}", if times.is_empty() { "" } else { ", " })
        }
        Occasion::SpotInService => "Spot is in service again".to_owned(),
        Occasion::DesiredLowered => "desired capacity is lowered".to_owned(),
    };
    let what = match found.action {
        WouldDo::ReplaceOnSpot => "replaced on Spot",
        WouldDo::FallBackToOnDemand => "fallback to on-demand",
        WouldDo::KeepTrying => "neither launches: tried again",
        WouldDo::StayOnDemand => "on-demand stands in",
        WouldDo::Wait => "waits: says nothing of Spot",
        WouldDo::Nothing => "nothing was missing",
        WouldDo::NotKnown => "Spot first; the rest is not known",
        WouldDo::ReturnToSpot => "return to Spot",
        WouldDo::EndFallback => "the fallback ends",
    };
    let many = if found.instances > 1 { format!(" ({} instances)", found.instances) } else { String::new() };
    let line = format!("{}  {about}: {what}{many}", minute(found.at));
    if line.chars().count() <= WIDTH {
        line
    } else {
        format!("{}  {about}:\n{:>18}{what}{many}", minute(found.at), "")
    }
}

/// One gap as a sentence.
fn gap(gap: &Gap) -> String {
    let count = gap.count;
    let mut text = match gap.kind {
        GapKind::OlderThanSixWeeks => {
            "AWS keeps activities for six weeks; what is older is not shown".to_owned()
        }
        GapKind::GroupIsYounger => "the group did not exist at the beginning".to_owned(),
        GapKind::CallFailed => format!("{count} call failed; what it would have shown is missing"),
        GapKind::Throttled => format!("{count} call was throttled for too long; what is older is missing"),
        GapKind::ThrottledAndRepeated => {
            format!("{count} calls were throttled and repeated; nothing is missing")
        }
        GapKind::TooManyPages => "there are more activities than are read; older ones are missing".to_owned(),
        GapKind::UnreadableCause => format!("{count} causes cannot be read"),
        GapKind::UnknownActivity => format!("{count} activities are of an unknown kind"),
        GapKind::DesiredUnknown => {
            format!("{count} changes of desired capacity, since no activity shows when")
        }
        GapKind::Weighted => "the group counts in weights, so missing capacity is not counted".to_owned(),
        GapKind::ServiceUnknown => format!("since when {count} instances are in service"),
        GapKind::LossUnexplained => {
            format!("whether {count} lost instances were interrupted, or terminated by somebody in EC2")
        }
    };
    if let Some(group) = &gap.group {
        text = format!("{group}: {text}");
    }
    if let Some(hours) = gap.hours {
        let _ = write!(text, " ({hours:.1} h");
        if let Some(more) = gap.instance_hours {
            let _ = write!(text, ", in which up to {more:.1} instance-hours more may have been missing");
        }
        text.push(')');
    }
    if let Some(example) = &gap.example {
        let _ = write!(text, ": {}", example.chars().take(200).collect::<String>());
    }
    text
}

/// An item of a list, in lines that fit.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec!["  -".to_owned()];
    for word in text.split_whitespace() {
        let last = lines.len() - 1;
        if lines[last].chars().count() + 1 + word.chars().count() > WIDTH {
            lines.push("   ".to_owned());
        }
        let last = lines.len() - 1;
        lines[last].push(' ');
        lines[last].push_str(word);
    }
    lines
}
