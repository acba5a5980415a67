//! One event as people are told it: whose, of what, why, and which command to run.

use serde::Serialize;

use crate::{model::Timestamp, pb};

/// One event, with nothing in it that could steer a terminal, a mail or a shell.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Item {
    /// When, RFC 3339.
    pub at: String,
    /// What happened, in a line.
    pub summary: String,
    /// The scope that it is about, as `mayfly` shows it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub scope: String,
    /// The tenant.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tenant: String,
    /// The partner.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub partner: String,
    /// The grant.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub grant: String,
    /// The workload.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub workload: String,
    /// What the work was for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub purpose: String,
    /// The task; of a reused token the first one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub task_id: String,
    /// Where the job can be seen, when that is known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub job_url: String,
    /// The reason's words: the broker's, or an operator's.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Who did it, as the audit names it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub actor: String,
    /// Until when, or by when; RFC 3339.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub until: String,
    /// Where it stands in the audit.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stream: String,
    /// Its place there.
    pub sequence: u64,
    /// Commands to run next, the most likely first.
    pub next: Vec<String>,
}

impl Item {
    /// What an event says.
    #[must_use]
    pub fn of(event: &pb::Event) -> Self {
        let detail = |name: &str| {
            let value = event.details.iter().find_map(|detail| detail.strip_prefix(name)?.strip_prefix('='));
            clean(value.unwrap_or_default())
        };
        let first_of = |one: &str, other: String| if one.is_empty() { other } else { clean(one) };
        let until = first_of(&detail("until"), detail("attest_by"));
        let mut item = Self {
            at: event.at.as_ref().map(time).unwrap_or_default(),
            scope: detail("scope"),
            tenant: clean(&event.tenant),
            partner: clean(&event.partner),
            grant: clean(&event.grant),
            workload: clean(&event.workload),
            purpose: clean(&event.purpose),
            task_id: first_of(&event.task_id, detail("first_task")),
            job_url: detail("job_url"),
            reason: clean(&event.reason),
            actor: clean(&event.actor),
            until,
            stream: clean(&event.stream),
            sequence: event.sequence,
            ..Self::default()
        };
        item.summary = item.summary(&event.kind, &detail("cause"));
        item.next = item.next(&event.kind, &detail("cause"), &clean(&event.proof), &detail("appeal"));
        item
    }

    fn summary(&self, kind: &str, cause: &str) -> String {
        let scope = if self.scope.is_empty() { "something" } else { &self.scope };
        match kind {
            "grant.attestation_due" => {
                format!("grant {}/{} must be attested by {}", self.tenant, self.grant, self.until)
            }
            "scope.suspended" | "task.suspended" => format!("{scope} is suspended: {cause}"),
            "appeal.filed" => format!("{} asks that the suspension of {scope} be lifted: {cause}", self.actor),
            "appeal.granted" => format!("the appeal for {scope} is granted, and it goes on"),
            "appeal.refused" => format!("the appeal for {scope} is refused; it stays suspended"),
            "appeal.closed" => format!("the appeal for {scope} is over: {}", self.reason),
            "scope.barred" => format!("{scope} is barred, and what lives under it is suspended"),
            "scope.quarantined" => format!("{scope} is in quarantine until {}", self.until),
            "quarantine.lapsed" => format!("the time of the quarantine of {scope} is over, and it stays closed"),
            "task.abandoned" => {
                format!("the job of task {} was gone before it completed the task, which has ended", self.task_id)
            }
            "secret.needs_rotation" => {
                format!("{scope} was taken from who had it, and stays good until it is rotated at its vendor")
            }
            "pickup.misused" => "a handle was used twice, or by a stranger: somebody else has it".to_owned(),
            "identity.token_reused" => "an identity token came with a second key: somebody else has it".to_owned(),
            "credential.reused" => {
                "a bound credential came without the certificate that it is bound to: somebody else has it".to_owned()
            }
            "clock.jumped" => "the clock jumped; nothing is issued until somebody confirms the time".to_owned(),
            "clock.behind" => "the clock was behind at the start; everything issued before has ended".to_owned(),
            "store.doubted" => "the store is in doubt; everything issued before has ended".to_owned(),
            "store.restored" => "the store was restored; everything issued before has ended".to_owned(),
            "operator.recovered" => "an operator's certificate was made on the host, from the seal key".to_owned(),
            "operator.restored" => "an operator was put back into the trust map, on the host".to_owned(),
            _ => clean(kind),
        }
    }

    /// Every command parses as it stands, but for words in capitals.
    fn next(&self, kind: &str, cause: &str, proof: &str, appeal: &str) -> Vec<String> {
        let grant = format!("{}/{}", self.tenant, self.grant);
        let attest = || format!("mayfly attest {grant} --reason 'still needed'");
        let commands = match (kind, cause) {
            ("scope.suspended", "owner left") => {
                vec![
                    format!("mayfly owner transfer {grant} --to NEW-OWNER --reason 'who answers for it now'"),
                    attest(),
                ]
            }
            ("scope.suspended", "dormant") => {
                vec![attest(), format!("mayfly retire {grant} --reason 'not used any more'")]
            }
            ("scope.suspended" | "grant.attestation_due", _) => vec![attest()],
            ("task.suspended", _) => vec![
                format!("mayfly task show {}", self.task_id),
                format!("mayfly appeal file task {} --reason 'why it is in order'", self.task_id),
            ],
            ("appeal.filed", _) => vec![
                "mayfly appeal list".to_owned(),
                format!("mayfly appeal grant {appeal} --reason 'what was found'"),
                format!("mayfly appeal refuse {appeal} --reason 'what was found'"),
            ],
            ("appeal.granted" | "appeal.refused" | "appeal.closed", _) => vec!["mayfly appeal list".to_owned()],
            ("scope.quarantined" | "quarantine.lapsed", _) => {
                let lift = |scope| format!("mayfly lift {scope} --quarantine --reason 'what was found'");
                scope_words(&self.scope).map(lift).into_iter().collect()
            }
            ("scope.barred", _) => {
                let lift = |scope| format!("mayfly lift {scope} --reason 'what was found'");
                scope_words(&self.scope).map(lift).into_iter().collect()
            }
            ("secret.needs_rotation", _) => {
                let name = self.scope.strip_prefix("secret ").unwrap_or("TENANT/NAME");
                vec![
                    format!("mayfly secret holders {name}"),
                    format!("mayfly secret rotate {name} --file NEW-VALUE --reason 'taken from who had it'"),
                ]
            }
            ("task.abandoned" | "pickup.misused", _) => {
                vec![
                    format!("mayfly task show {}", self.task_id),
                    format!("mayfly events list --task {}", self.task_id),
                ]
            }
            ("identity.token_reused", _) => {
                let revoke = format!("mayfly revoke proof {proof} --reason 'token seen with a second key'");
                let show = format!("mayfly task show {}", self.task_id);
                if self.task_id.is_empty() { vec![revoke] } else { vec![show, revoke] }
            }
            ("credential.reused", _) => {
                let show = format!("mayfly task show {}", self.task_id);
                vec![show, format!("mayfly revoke task {} --reason 'its credential is in other hands'", self.task_id)]
            }
            ("clock.jumped", _) => vec!["mayfly confirm time --now TIME --reason 'checked'".to_owned()],
            ("operator.recovered" | "operator.restored", _) => vec!["mayfly events list --kind operator.".to_owned()],
            _ => Vec::new(),
        };
        let known: Vec<String> = commands.into_iter().filter(|command| is_plain(command)).collect();
        if known.is_empty() { vec!["mayfly status".to_owned()] } else { known }
    }
}

/// A scope as commands name it.
fn scope_words(shown: &str) -> Option<String> {
    match shown.split(' ').collect::<Vec<_>>().as_slice() {
        ["partner", partner, "in", "tenant", tenant] => Some(format!("partner {tenant}/{partner}")),
        ["signing", "key", id] => Some(format!("key {id}")),
        [kind, name] if !name.is_empty() => Some(format!("{kind} {name}")),
        _ => None,
    }
}

/// Whether a command is whole, and a shell takes it as it looks: names in events are plain, and what is not is no name.
fn is_plain(command: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b" ./:'-_".contains(&b);
    !command.contains("  ") && !command.contains(" /") && !command.contains("/ ") && command.bytes().all(plain)
}

/// A text of somebody else's on one line: what steers a terminal or hides is `?`, and it is cut.
pub(super) fn clean(text: &str) -> String {
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    let mut cleaned: String = text.chars().take(TEXT_MAX).map(|c| if hidden(c) { '?' } else { c }).collect();
    if text.chars().nth(TEXT_MAX).is_some() {
        cleaned.push_str("...");
    }
    cleaned
}

fn time(at: &prost_types::Timestamp) -> String {
    Timestamp::from_seconds(u64::try_from(at.seconds).unwrap_or(0)).rfc3339()
}

/// Characters of one text.
const TEXT_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, details: &[&str]) -> pb::Event {
        pb::Event {
            kind: kind.into(),
            tenant: "acme".into(),
            partner: "globex".into(),
            grant: "ci".into(),
            task_id: "400000010000000000000001".into(),
            proof: "ab".repeat(32),
            details: details.iter().map(|&detail| detail.to_owned()).collect(),
            ..Default::default()
        }
    }

    #[test]
    fn each_kind_says_which_command_comes_next() {
        for (kind, details, first) in [
            ("grant.attestation_due", &["attest_by=2027-01-31T00:00:00Z"][..], "mayfly attest acme/ci --reason"),
            ("scope.suspended", &["scope=grant acme/ci", "cause=dormant"], "mayfly attest acme/ci --reason"),
            ("scope.suspended", &["cause=owner left"], "mayfly owner transfer acme/ci --to NEW-OWNER"),
            (
                "scope.quarantined",
                &["scope=partner globex in tenant acme"],
                "mayfly lift partner acme/globex --quarantine",
            ),
            ("quarantine.lapsed", &["scope=signing key k1"], "mayfly lift key k1 --quarantine"),
            ("scope.barred", &["scope=tenant acme"], "mayfly lift tenant acme --reason"),
            ("scope.barred", &["scope=everything"], "mayfly status"),
            ("task.abandoned", &[], "mayfly task show 400000010000000000000001"),
            ("task.suspended", &["cause=velocity"], "mayfly task show 400000010000000000000001"),
            ("appeal.filed", &["appeal=00c0ffee", "cause=velocity"], "mayfly appeal list"),
            ("appeal.refused", &["appeal=00c0ffee"], "mayfly appeal list"),
            ("identity.token_reused", &[], "mayfly task show"),
            ("credential.reused", &[], "mayfly task show"),
            ("clock.behind", &[], "mayfly status"),
        ] {
            let item = Item::of(&event(kind, details));
            assert!(item.next[0].starts_with(first), "{kind}: {:?}", item.next);
            assert!(!item.summary.is_empty() && item.summary != kind, "{kind}: {}", item.summary);
        }
    }

    #[test]
    fn what_a_stranger_wrote_steers_nothing() {
        let mut odd = event("task.abandoned", &["job_url=https://ci.example/\r\nBcc: everyone@example.com"]);
        odd.purpose = "work\u{1b}[2J\u{202e}".into();
        odd.task_id = "1; rm -rf /".into();
        let item = Item::of(&odd);
        assert_eq!(item.job_url, "https://ci.example/??Bcc: everyone@example.com");
        assert_eq!(item.purpose, "work?[2J?");
        assert_eq!(item.next, ["mayfly status"]);
        odd.reason = "x".repeat(10_000);
        assert_eq!(Item::of(&odd).reason.len(), 515);
    }
}
