//! What the daemon thinks of itself.

use crate::{
    cli::cell::{Fields, Record},
    pb,
};

impl Record for pb::GetStatusResponse {
    const COLUMNS: &'static [(&'static str, &'static str)] = &[("VERSION", "version"), ("HELD", "held")];

    fn fields(&self) -> Fields {
        Fields::new()
            .text("version", &self.version)
            .revision("revision", self.revision.as_ref())
            .text("engine", &self.engine)
            .time("started", self.started.as_ref())
            .time("now", self.now.as_ref())
            .text("held", &self.held)
            .number("live_leases", self.live_leases)
            .number("cuts", self.cuts)
            .number("bars", self.bars)
            .number("set_aside", self.set_aside)
            .number("disk_bytes", self.disk_bytes)
            .number("holds", self.holds)
            .number("watchers", self.watchers)
            .words("unreadable_policies", &self.unreadable_policies)
            .records("sinks", self.sinks.iter().map(Record::fields).collect())
    }
}

impl Record for pb::SinkStatus {
    const COLUMNS: &'static [(&'static str, &'static str)] =
        &[("SINK", "name"), ("ACKNOWLEDGED", "acknowledged"), ("BEHIND", "behind"), ("LAST ERROR", "last_error")];

    fn fields(&self) -> Fields {
        Fields::new()
            .text("name", &self.name)
            .number("acknowledged", self.acknowledged)
            .number("behind", self.behind)
            .text("last_error", &self.last_error)
    }
}
