//! Reads who is notified, and how.

use std::{collections::HashMap, net::IpAddr, path::PathBuf, time::Duration};

use super::read::{self, At, FileRule, Section};
use crate::model::{Topic, address::is_private};

/// Who is notified, and how. Without a route nobody is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Notify {
    /// How long before its date an attestation is asked for once. Default 7 days; 0 for never.
    pub remind_before: Duration,
    /// How long a notification is tried. Default 72 hours.
    pub give_up: Duration,
    /// The server that takes mail.
    pub smtp: Option<Smtp>,
    /// Where notifications go, by owner.
    pub routes: Vec<Route>,
}

/// Where the notifications of some owners go.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Route {
    /// 1 to 63 bytes of `[a-z0-9-]`; names it in commands and metrics.
    pub name: String,
    /// Owners of grants, and contacts of accountability, as the trust map spells them.
    pub owners: Vec<String>,
    /// Whether it takes what has no route of its own.
    pub is_default: bool,
    /// What it takes. Default everything.
    pub topics: Vec<Topic>,
    /// Posts to a URL.
    pub webhook: Option<Webhook>,
    /// Mail addresses.
    pub mail: Vec<String>,
}

/// A receiver of signed webhooks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Webhook {
    /// Begins with `https://`; has no user.
    pub url: String,
    /// Lines of `whsec_...`; only the server's user may read it.
    pub secret_file: PathBuf,
    /// PEM roots. Default: the system's bundle.
    pub ca_file: PathBuf,
    /// Whether it may be at a private address.
    pub allow_private: bool,
}

/// A server that takes mail.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Smtp {
    /// A name or an address.
    pub host: String,
    /// Default 465, 587 with STARTTLS, 25 without TLS.
    pub port: u16,
    /// Default from the first byte.
    pub tls: SmtpTls,
    /// User, and the file of its password.
    pub login: Option<(String, PathBuf)>,
    /// Who mail is from.
    pub from: String,
    /// PEM roots. Default: the system's bundle.
    pub ca_file: PathBuf,
    /// Whether it may be at a private address.
    pub allow_private: bool,
}

/// When TLS begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SmtpTls {
    /// With the connection (RFC 8314).
    Implicit,
    /// After STARTTLS (RFC 3207), which is demanded.
    Starttls,
    /// Never: for a relay on this host.
    None,
}

impl Notify {
    /// The most routes.
    pub const MAX_ROUTES: usize = 64;
    /// The most owners or mail addresses of a route.
    pub const MAX_LIST: usize = 64;
}

impl Default for Notify {
    fn default() -> Self {
        Self { remind_before: DAY * 7, give_up: DAY * 3, smtp: None, routes: Vec::new() }
    }
}

pub(super) fn notify(mut section: Section<'_>) -> Notify {
    let remind = section.whole("remind_before_days", 7, 0..=90);
    let give_up = section.whole("give_up_hours", 72, 1..=720);
    let smtp = section.has("smtp").then(|| smtp(section.section("smtp")));
    let mut routes: Vec<Route> = Vec::new();
    let mut owners: HashMap<String, String> = HashMap::new();
    let sections = section.sections("route");
    if sections.len() > Notify::MAX_ROUTES {
        section.note("route", format!("is given more than {} times", Notify::MAX_ROUTES), "let routes share owners");
    }
    for mut own in sections {
        let route = route(&mut own, &routes, &mut owners);
        if let Some(route) = &route
            && !route.mail.is_empty()
            && smtp.is_none()
        {
            own.note("mail", "is given without [notify.smtp]", "add [notify.smtp] with host and from");
        }
        own.finish();
        routes.extend(route);
    }
    section.finish();
    let give_up = Duration::from_secs(give_up.value * 3_600);
    let remind_before = DAY * u32::try_from(remind.value).unwrap_or(0);
    Notify { remind_before, give_up, smtp: smtp.flatten(), routes }
}

fn route(section: &mut Section<'_>, above: &[Route], taken: &mut HashMap<String, String>) -> Option<Route> {
    let name = section.required_text("name", "payments");
    let name = name.and_then(|name| section.parse(name, "payments", route_name));
    let owners = section.texts("owners", "payments@acme.example");
    let is_default = section.flag("default", false);
    let kinds = section.choices("kinds", &Topic::ALL);
    let mail = section.texts("mail", "payments@acme.example");
    let webhook = section.has("webhook").then(|| webhook(section.section("webhook")));
    let shown = name.as_ref().map_or("", |name| name.value.as_str()).to_owned();
    if above.iter().any(|other| other.name == shown) {
        section.note("name", format!("`{shown}` is taken by a route above"), "choose another name");
    }
    if is_default && above.iter().any(|other| other.is_default) {
        section.note("default", "is true of a route above already", "leave it to one route");
    }
    if let Some(none) = kinds.as_ref().filter(|kinds| kinds.value.is_empty()) {
        section.note_at(none, "is empty, so nothing would be told", "name what to tell, or leave it out for all");
    }
    for owner in owners.iter().flat_map(|owners| &owners.value) {
        if owner.value.is_empty() || owner.value.len() > 255 {
            section.note_at(owner, "is not of 1 to 255 bytes", "write the owner as grants name it");
        }
        if let Some(other) = taken.insert(owner.value.clone(), shown.clone()) {
            section.note_at(owner, format!("has the route `{other}` already"), "give each owner one route");
        }
    }
    for address in mail.iter().flat_map(|mail| &mail.value) {
        if address.value.parse::<lettre::Address>().is_err() {
            section.note_at(address, "is no mail address", "write it as in \"payments@acme.example\"");
        }
    }
    for list in [&owners, &mail].into_iter().flatten().filter(|list| list.value.len() > Notify::MAX_LIST) {
        section.note_at(list, format!("has more than {} entries", Notify::MAX_LIST), "split it over routes");
    }
    let texts =
        |list: Option<At<Vec<At<String>>>>| list.into_iter().flat_map(|at| at.value).map(|at| at.value).collect();
    let (owners, mail): (Vec<String>, Vec<String>) = (texts(owners), texts(mail));
    if owners.is_empty() && !is_default {
        section.note("owners", "is missing", "name owners, or write default = true");
    }
    if mail.is_empty() && webhook.is_none() {
        section.note("mail", "is missing, and so is [notify.route.webhook]", "say where the route leads");
    }
    let topics = kinds.map_or_else(
        || Topic::ALL.into_iter().map(|(_, topic)| topic).collect(),
        |kinds| kinds.value.into_iter().map(|at| at.value).collect(),
    );
    // What is wrong with a webhook was noted.
    Some(Route { name: name?.value, owners, is_default, topics, webhook: webhook.flatten(), mail })
}

fn webhook(mut section: Section<'_>) -> Option<Webhook> {
    let example = "https://hooks.example.com/mayfly";
    let url = section.required_text("url", example);
    let secret_file = section.required_path("secret_file", "/etc/mayfly/hooks.secret");
    let allow_private = section.flag("allow_private", false);
    let ca_file = roots(&mut section);
    if let Some(file) = &secret_file {
        section.check_file(file, FileRule::Private);
    }
    let url = url.map(|url| {
        let host = webhook_host(&url.value);
        if host.is_none() {
            // The URL may hold what only its receiver should know, and so is not shown.
            section.note_at(&url, "is no https URL without user and fragment", format!("write it as in {example}"));
        }
        if !allow_private && host.and_then(|host| host.parse::<IpAddr>().ok()).is_some_and(is_private) {
            section.note_at(&url, "is at a private address", "set allow_private if that is meant");
        }
        url.value
    });
    section.finish();
    Some(Webhook { url: url?, secret_file: secret_file?.value, ca_file: ca_file?, allow_private })
}

fn smtp(mut section: Section<'_>) -> Option<Smtp> {
    let host = section.required_text("host", "smtp.example.com");
    let tls = section.choice("tls", &TLS);
    let mode = tls.as_ref().map_or(SmtpTls::Implicit, |at| at.value);
    let port = section.whole("port", mode.port().into(), 1..=65_535);
    let username = section.text("username", "mayfly");
    let password = section.path("password_file", "/etc/mayfly/smtp.password");
    let from = section.required_text("from", "mayfly@example.com");
    let allow_private = section.flag("allow_private", false);
    let ca_file = roots(&mut section);
    if let Some(file) = &password {
        section.check_file(file, FileRule::Private);
    }
    if let Some(from) = from.as_ref().filter(|from| from.value.parse::<lettre::message::Mailbox>().is_err()) {
        section.note_at(from, "is no mail address", "write it as in \"Mayfly <mayfly@example.com>\"");
    }
    if let Some(host) = &host {
        let literal = host.value.parse::<IpAddr>();
        let named = rustls::pki_types::ServerName::try_from(host.value.as_str()).is_ok();
        if !named {
            section.note_at(host, "is neither a DNS name nor an address", "write it as in \"smtp.example.com\"");
        }
        let is_near = literal.as_ref().is_ok_and(IpAddr::is_loopback);
        if mode == SmtpTls::None && !is_near {
            section.note_at(
                host,
                "is reached without TLS and is not a loopback address",
                "write 127.0.0.1, or use TLS",
            );
        }
        if !allow_private && mode != SmtpTls::None && literal.is_ok_and(is_private) {
            section.note_at(host, "is at a private address", "set allow_private if that is meant");
        }
    }
    let login = match (username, password) {
        (Some(user), Some(file)) => Some((user.value, file.value)),
        (Some(lonely), None) => {
            section.note_at(&lonely, "is given without password_file", "add password_file");
            None
        }
        (None, Some(lonely)) => {
            section.note_at(&lonely, "is given without username", "add username");
            None
        }
        (None, None) => None,
    };
    if mode == SmtpTls::None && login.is_some() {
        section.note("username", "would cross the wire in the clear", "leave it out, or use TLS");
    }
    section.finish();
    Some(Smtp {
        host: host?.value,
        port: u16::try_from(port.value).unwrap_or(u16::MAX),
        tls: mode,
        login,
        from: from?.value,
        ca_file: ca_file?,
        allow_private: allow_private || mode == SmtpTls::None,
    })
}

fn roots(section: &mut Section<'_>) -> Option<PathBuf> {
    let given = section.path("ca_file", "/etc/mayfly/notify-ca.pem");
    if let Some(file) = &given {
        section.check_file(file, FileRule::Public);
    }
    let file = given.map(|at| at.value).or_else(read::system_roots);
    if file.is_none() {
        section.note("ca_file", "is missing, and the system has no bundle of roots", "name a PEM file of roots");
    }
    file
}

/// The host of a URL that may be posted to, without the brackets of an address.
fn webhook_host(text: &str) -> Option<String> {
    let url: http::Uri = text.parse().ok()?;
    let plain = url.scheme_str() == Some("https") && !text.contains(['#', '@']) && text.len() <= 2_048;
    let host = url.host()?.trim_matches(['[', ']']).to_owned();
    (plain && !host.is_empty()).then_some(host)
}

fn route_name(text: &str) -> Result<String, String> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let good = (1..=63).contains(&text.len()) && text.bytes().all(plain);
    if good { Ok(text.to_owned()) } else { Err("is not of 1 to 63 bytes of [a-z0-9-]".to_owned()) }
}

impl SmtpTls {
    fn port(self) -> u16 {
        match self {
            Self::Implicit => 465,
            Self::Starttls => 587,
            Self::None => 25,
        }
    }
}

const TLS: [(&str, SmtpTls); 3] =
    [("implicit", SmtpTls::Implicit), ("starttls", SmtpTls::Starttls), ("none", SmtpTls::None)];
const DAY: Duration = Duration::from_secs(86_400);

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt, path::Path};

    use super::*;
    use crate::{config::Config, settings::Problems};

    const HEAD: &str =
        "data_dir = \"data\"\npublic_url = \"https://mayfly.example.com/\"\nseal.key_file = \"seal.key\"\n";

    fn parse(folder: &Path, text: &str) -> Result<Config, Problems> {
        Config::parse(&format!("{HEAD}{text}"), &folder.join("mayfly.toml"))
    }

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("folder");
        for name in ["seal.key", "secret", "ca.pem", "open"] {
            let path = folder.path().join(name);
            std::fs::write(&path, "x").expect("written");
            let mode = if name == "open" { 0o644 } else { 0o600 };
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("mode");
        }
        folder
    }

    #[test]
    fn routes_are_read_with_their_defaults() {
        let folder = folder();
        let text = "[notify]\nremind_before_days = 14\n[notify.smtp]\nhost = \"smtp.example.com\"\n\
                    from = \"Mayfly <m@example.com>\"\nca_file = \"ca.pem\"\ntls = \"starttls\"\n\
                    [[notify.route]]\nname = \"pay\"\nowners = [\"pay@acme.example\"]\nmail = [\"pay@acme.example\"]\n\
                    kinds = [\"abandoned\", \"alarm\"]\n\
                    [[notify.route]]\nname = \"sec\"\ndefault = true\n[notify.route.webhook]\n\
                    url = \"https://hooks.example.com/x?y=z\"\nsecret_file = \"secret\"\nca_file = \"ca.pem\"\n";
        let notify = parse(folder.path(), text).expect("parses").notify;
        assert_eq!((notify.remind_before, notify.give_up), (DAY * 14, DAY * 3));
        let smtp = notify.smtp.expect("smtp");
        assert_eq!((smtp.port, smtp.tls, smtp.login, smtp.allow_private), (587, SmtpTls::Starttls, None, false));
        let [pay, sec] = notify.routes.as_slice() else { panic!("two routes") };
        assert_eq!(pay.topics, [Topic::Abandoned, Topic::Alarm]);
        assert!(!pay.is_default && pay.webhook.is_none() && sec.is_default && sec.topics.len() == Topic::ALL.len());
        assert!(!sec.webhook.as_ref().expect("webhook").allow_private);
    }

    #[test]
    fn every_problem_is_reported_with_its_line_and_none_shows_a_url() {
        let folder = folder();
        let text = "[notify]\ngive_up_hours = 0\n\
                    [[notify.route]]\nname = \"Pay\"\nowners = []\nkinds = [\"alarms\"]\n\
                    [[notify.route]]\nname = \"a\"\nowners = [\"o\", \"o\"]\nmail = [\"not an address\"]\n\
                    [[notify.route]]\nname = \"a\"\ndefault = true\n[notify.route.webhook]\n\
                    url = \"http://hunter2@hooks.example.com\"\nsecret_file = \"open\"\nca_file = \"ca.pem\"\n\
                    [[notify.route]]\nname = \"b\"\ndefault = true\n[notify.route.webhook]\n\
                    url = \"https://169.254.169.254/hunter2\"\nsecret_file = \"secret\"\nca_file = \"ca.pem\"\nsecret = 1\n";
        let problems = parse(folder.path(), text).expect_err("refused").to_string();
        for want in [
            ":5: notify.give_up_hours: is out of range",
            ":7: notify.route[0].name: `Pay` is not of 1 to 63 bytes",
            "notify.route[0].owners: is missing",
            "notify.route[0].mail: is missing",
            ":9: notify.route[0].kinds[0]: `alarms` is not known",
            ":12: notify.route[1].owners[1]: has the route `a` already",
            ":13: notify.route[1].mail[0]: is no mail address",
            "notify.route[1].mail: is given without [notify.smtp]",
            "notify.route[2].name: `a` is taken by a route above",
            ":18: notify.route[2].webhook.url: is no https URL",
            ":19: notify.route[2].webhook.secret_file",
            "notify.route[3].default: is true of a route above",
            ":25: notify.route[3].webhook.url: is at a private address",
            "notify.route[3].webhook.secret: is not a known field",
        ] {
            assert!(problems.contains(want), "{want}\n{problems}");
        }
        assert!(!problems.contains("hunter2"), "{problems}");
    }

    #[test]
    fn mail_in_the_clear_stays_on_the_host_and_carries_no_password() {
        let folder = folder();
        let smtp = |more: &str| {
            parse(folder.path(), &format!("[notify.smtp]\nfrom = \"m@example.com\"\nca_file = \"ca.pem\"\n{more}"))
        };
        smtp("host = \"127.0.0.1\"\ntls = \"none\"\n").expect("a relay on this host");
        for (more, want) in [
            ("host = \"smtp.example.com\"\ntls = \"none\"\n", "is reached without TLS"),
            ("host = \"127.0.0.1\"\ntls = \"none\"\nusername = \"u\"\npassword_file = \"secret\"\n", "in the clear"),
            ("host = \"10.0.0.1\"\n", "is at a private address"),
            ("host = \"smtp.example.com\"\nusername = \"u\"\n", "without password_file"),
        ] {
            let problems = smtp(more).expect_err(more).to_string();
            assert!(problems.contains(want), "{want}\n{problems}");
        }
    }
}
