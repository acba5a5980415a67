//! Reads the audit sinks.

use std::path::PathBuf;

use super::{
    AuditSink, SinkTarget,
    read::{At, FileRule, Section},
};

pub(super) fn audit_sinks(sections: Vec<Section<'_>>) -> Vec<AuditSink> {
    let mut sinks: Vec<AuditSink> = Vec::new();
    for mut section in sections {
        let kind = section.required_text("kind", "file");
        let name = section.text("name", "siem");
        let target = kind.as_ref().and_then(|kind| sink_target(&mut section, kind));
        if let (Some(kind), Some(target)) = (kind, target) {
            let name = name.unwrap_or(kind);
            if sinks.iter().any(|sink| sink.name == name.value) {
                let mend = "give each sink a name of its own";
                section.note_at(&name, format!("the name `{}` is taken by a sink above", name.value), mend);
            }
            sinks.push(AuditSink { name: name.value, target });
            section.finish();
        }
    }
    sinks
}

/// `None` after noting what is wrong.
fn sink_target(section: &mut Section<'_>, kind: &At<String>) -> Option<SinkTarget> {
    match kind.value.as_str() {
        "file" => Some(SinkTarget::File { path: section.required_path("path", "/var/log/mayfly/audit.jsonl")?.value }),
        "syslog" => {
            let example = "syslog.example.com:6514";
            let address = section.required_text("address", example);
            let server_name = section.text("server_name", "syslog.example.com").map(|at| at.value);
            let ca_file = optional_file(section, "ca_file", FileRule::Public);
            let (address, host) = section.parse(address?, example, host_and_port)?.value;
            Some(SinkTarget::Syslog { address, server_name: server_name.unwrap_or(host), ca_file })
        }
        "https" => {
            let example = "https://siem.example.com/events";
            let url = section.required_text("url", example);
            let ca_file = optional_file(section, "ca_file", FileRule::Public);
            let bearer_token_file = optional_file(section, "bearer_token_file", FileRule::Private);
            let url = url?;
            if url.value.contains('@') {
                // The URL is shown in logs and errors, and so not here either.
                section.note_at(&url, "holds a user or password", "name a file with bearer_token_file instead");
                return None;
            }
            let url = section.parse(url, example, https_url)?.value;
            Some(SinkTarget::Https { url, ca_file, bearer_token_file })
        }
        other => {
            let mend = "write one of \"file\", \"syslog\", \"https\"";
            section.note_at(kind, format!("`{other}` is not known"), mend);
            None
        }
    }
}

fn optional_file(section: &mut Section<'_>, key: &'static str, rule: FileRule) -> Option<PathBuf> {
    let file = section.path(key, "/etc/mayfly/file.pem")?;
    section.check_file(&file, rule);
    Some(file.value)
}

fn host_and_port(text: &str) -> Result<(String, String), String> {
    text.rsplit_once(':')
        .filter(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
        .map(|(host, _)| (text.to_owned(), host.trim_matches(['[', ']']).to_owned()))
        .ok_or_else(|| "is not a host with a port".to_owned())
}

fn https_url(text: &str) -> Result<String, String> {
    let url: http::Uri = text.parse().map_err(|_| "is not a URL".to_owned())?;
    let secure = url.scheme_str() == Some("https") && url.host().is_some();
    if secure { Ok(text.to_owned()) } else { Err("does not begin with https:// and a host".to_owned()) }
}
