//! A message as JSON and as text.

use serde_json::{Value, json};

use super::{Message, item::clean};

impl Message {
    /// The body of a webhook: `type`, `timestamp` and `data`, as the Standard Webhooks specification has them.
    pub(super) fn json(&self, route: &str, public_url: &str) -> Vec<u8> {
        let body = json!({
            "type": self.kind,
            "timestamp": self.created.rfc3339(),
            "data": {
                "topic": self.topic.map_or(Value::Null, |topic| topic.word().into()),
                "test": self.is_test(),
                "title": self.title(),
                "broker": public_url,
                "route": route,
                "owner": clean(&self.owner),
                "count": self.count,
                "items": self.items,
            },
        });
        body.to_string().into_bytes()
    }

    /// What it is about, in a few words: nothing in it is a stranger's.
    pub(super) fn title(&self) -> String {
        let what = match self.kind.as_str() {
            "notify.test" => "a test message",
            "grant.attestation_due" => "attestation due soon",
            "scope.suspended" if self.topic == Some(crate::model::Topic::Attestation) => {
                "attestation overdue, suspended"
            }
            "scope.suspended" | "task.suspended" => "suspended",
            "appeal.filed" => "somebody asks for a suspension to be lifted",
            "appeal.granted" | "appeal.refused" | "appeal.closed" => "an appeal is answered",
            "scope.barred" => "barred and suspended",
            "scope.quarantined" => "quarantined",
            "quarantine.lapsed" => "the time of a quarantine is over",
            "task.abandoned" => "a job left its task behind",
            "identity.token_reused" => "alarm: an identity token is used twice",
            "credential.reused" => "alarm: somebody else has a credential",
            "clock.jumped" | "clock.behind" => "alarm: the clock",
            "store.doubted" | "store.restored" => "alarm: the store",
            "operator.recovered" | "operator.restored" => "alarm: an operator was recovered on the host",
            _ => "something happened",
        };
        if self.count > 1 { format!("{what} ({})", self.count) } else { what.to_owned() }
    }

    /// The body of a mail.
    pub(super) fn text(&self, route: &str, public_url: &str) -> String {
        let mut lines = vec![format!("Mayfly: {}", self.title()), String::new()];
        if self.is_test() {
            lines.push("This is a test. Nothing happened, and there is nothing to do.".to_owned());
        }
        if !self.owner.is_empty() {
            lines.push(format!("For: {}", clean(&self.owner)));
        }
        for item in &self.items {
            lines.extend([String::new(), format!("* {} - {}", item.at, item.summary)]);
            let facts = [
                ("tenant", &item.tenant),
                ("partner", &item.partner),
                ("grant", &item.grant),
                ("workload", &item.workload),
                ("purpose", &item.purpose),
                ("task", &item.task_id),
                ("job", &item.job_url),
                ("until", &item.until),
                ("reason", &item.reason),
                ("by", &item.actor),
            ];
            let facts = facts.iter().filter(|(_, value)| !value.is_empty());
            lines.extend(facts.map(|(name, value)| format!("  {name}: {value}")));
            lines.extend(item.next.iter().map(|command| format!("  next: {command}")));
        }
        let listed = u32::try_from(self.items.len()).unwrap_or(u32::MAX);
        if self.count > listed {
            lines.push(format!(
                "\n... and {} more: see `mayfly events list --kind {}`",
                self.count - listed,
                self.kind
            ));
        }
        lines.extend([
            String::new(),
            "--".to_owned(),
            format!("Sent by the broker at {public_url} to route {route}; message {}.", self.id),
            "Copies of one message have one id. Answers are not read.".to_owned(),
        ]);
        lines.join("\n")
    }

    fn is_test(&self) -> bool {
        self.kind == "notify.test"
    }
}
