use crate::{
    model::{CredentialKind, GrantName, Timestamp},
    policy::{Asked, BindingWish, Denied, Facts, Origin, Scene, TenantTrust, decide, diff_tenant, tests::problems},
};

use super::{BASE, grant, map, now, tenant};

const CLASS: &str = "[[resource_class]]\ntenant = \"acme\"\nname = \"financial\"\n\
                     audiences = [\"https://ledger.test/*\"]\nttl_max = \"2m\"\npurposes = [\"deploy\"]\n";

/// A grant for what is in the class, and for no more than the class allows.
const FITTING: &str = "audiences = [\"https://ledger.test/books\"]\nttl_max = 120\npurposes = [\"deploy\"]";

fn with(class: &str, more: &str) -> String {
    format!("{BASE}{class}{}", grant("g", more))
}

#[test]
fn a_class_of_resources_holds_down_every_grant_that_reaches_it() {
    map(&with(CLASS, FITTING));
    // What lies beside the class is as before.
    map(&with(CLASS, "ttl_max = 3600\nrequire_binding = false\npurposes = [\"deploy\", \"scan\"]"));
    for (wide, told) in [
        (FITTING.replace("120", "121"), "grant.ttl_max: 121 s exceed the 120 s of resource class `financial`"),
        (format!("{FITTING}\nrequire_binding = false"), "grant.require_binding: is false"),
        (
            format!("{FITTING}\nrequire_binding = false\nkinds = [\"jwt\", \"secret\"]\nsecrets = [\"stripe\"]"),
            "grant.require_binding: is false",
        ),
        (FITTING.replace("[\"deploy\"]", "[\"deploy\", \"scan\"]"), "grant.purposes: `scan` is no purpose"),
        // All of a folder, or a part of it, with something else beside.
        (FITTING.replace("books\"", "*\", \"https://api.test\"").replace("120", "600"), "grant.ttl_max: 600 s exceed"),
    ] {
        let found = problems(&with(CLASS, &wide));
        assert_eq!(found.len(), 1, "{wide}: {found:?}");
        assert!(found[0].contains(told), "{wide}: {found:?}");
    }
    let two = CLASS.replace("audiences = [", "audiences = [\"https://vault.test/*\", ");
    let found = problems(&with(&two, &FITTING.replace("120", "121")));
    assert!(
        found.len() == 1 && found[0].contains("121 s exceed the 120 s"),
        "one of its resources is enough: {found:?}"
    );
    let free = CLASS.replace("ttl_max", "require_binding = false\nttl_max").replace("purposes = [\"deploy\"]\n", "");
    map(&with(&free, &format!("{}\nrequire_binding = false", FITTING.replace("[\"deploy\"]", "[\"scan\"]"))));
}

#[test]
fn a_class_says_what_is_in_it_and_for_how_long() {
    for (bad, told) in [
        (CLASS.replace("audiences = [\"https://ledger.test/*\"]\n", ""), "resource_class.audiences: is missing"),
        (CLASS.replace("ttl_max = \"2m\"\n", ""), "resource_class.ttl_max: is missing"),
        (CLASS.replace("ttl_max = \"2m\"", "ttl_max = \"2h\""), "resource_class.ttl_max: is not within its limits"),
        (CLASS.replace("ttl_max", "ttl = 1\nttl_max"), "resource_class.ttl: is not known"),
        (CLASS.replace("acme", "gone"), "tenant `gone` is not defined"),
        (format!("{CLASS}{CLASS}"), "`financial` of tenant `acme` is defined twice"),
    ] {
        let found = problems(&with(&bad, FITTING)).join("\n");
        assert!(found.contains(told), "{bad}: {found}");
    }
    let classes =
        |count: usize| -> String { (0..count).map(|n| CLASS.replace("financial", &format!("c{n}"))).collect() };
    map(&with(&classes(64), FITTING));
    assert!(problems(&with(&classes(65), FITTING)).join("\n").contains("are 65, where 64 are allowed"));
}

#[test]
fn a_class_outlasts_the_store_and_adding_one_shows() {
    let (before, after) = (tenant(&map(&with("", FITTING)), "acme"), tenant(&map(&with(CLASS, FITTING)), "acme"));
    assert_eq!(TenantTrust::from_bytes(&after.to_bytes()).expect("reads"), after);
    let changes = diff_tenant(Some(&before), Some(&after));
    assert_eq!(changes.len(), 1);
    assert!(changes[0].details[0].starts_with("resource_classes"), "{changes:?}");
    let class = after.resource_classes().get("financial").expect("there");
    assert!(class.is_reached_by(&after.grants()[&"g".parse::<GrantName>().expect("a name")]));
}

fn asked(trust: &TenantTrust, ttl_seconds: u32, has_certificate: bool, renewals: Option<u32>) -> Result<u64, Denied> {
    let asked = Asked {
        workload: &"ci".parse().expect("a name"),
        partner: &"payco".parse().expect("a name"),
        purpose: &"deploy".parse().expect("a name"),
        grant: None,
        kind: CredentialKind::Jwt,
        audiences: &["https://ledger.test/books".to_owned()],
        actions: &[],
        dns_names: &[],
        ttl_seconds,
        binding: BindingWish::Default,
    };
    let facts = Facts {
        basis: (1, 2),
        task_deadline: None,
        proof_expires: None,
        issuer_expires: None,
        has_certificate,
        attest_by: &|_: &GrantName| None::<Timestamp>,
        proofs: vec![],
        origin: Origin::Unknown,
        approved: &[],
        scene: Scene { renewals, ..Scene::default() },
    };
    let decision = decide(trust, &asked, &facts, now())?;
    Ok(decision.expires().seconds() - now().seconds())
}

#[test]
fn an_hour_of_what_is_sensitive_is_refused_and_so_is_a_token_that_anyone_could_use() {
    let trust = tenant(&map(&with(CLASS, FITTING)), "acme");
    assert_eq!(asked(&trust, 3_600, true, None).map_err(|why| why.reason()), Err("TTL_TOO_LONG"));
    assert_eq!(asked(&trust, 0, false, None).map_err(|why| why.reason()), Err("BINDING_REQUIRED"));
    assert_eq!(asked(&trust, 0, true, None), Ok(120));
}

#[test]
fn a_static_secret_of_a_class_goes_to_who_holds_a_key_or_is_on_this_host() {
    let class = CLASS.replace("https://ledger.test/*", "secret:stripe");
    let grants = "kinds = [\"secret\"]\nsecrets = [\"stripe\", \"twilio\"]\naudiences = []\nttl_max = 120\npurposes = [\"deploy\"]";
    let given = |class: &str, secret: &str, has_certificate, origin| {
        let trust = tenant(&map(&with(class, grants)), "acme");
        let audiences = [format!("secret:{secret}")];
        let asked = Asked {
            workload: &"ci".parse().expect("a name"),
            partner: &"payco".parse().expect("a name"),
            purpose: &"deploy".parse().expect("a name"),
            grant: None,
            kind: CredentialKind::Secret,
            audiences: &audiences,
            actions: &[],
            dns_names: &[],
            ttl_seconds: 0,
            binding: BindingWish::Default,
        };
        let facts = Facts {
            basis: (1, 2),
            task_deadline: None,
            proof_expires: None,
            issuer_expires: None,
            has_certificate,
            attest_by: &|_: &GrantName| None::<Timestamp>,
            proofs: vec![],
            origin,
            approved: &[],
            scene: Scene::default(),
        };
        decide(&trust, &asked, &facts, now()).map(drop).map_err(|why| why.reason())
    };
    let afar = Origin::Network("192.0.2.7".parse().expect("an address"));
    assert_eq!(given(&class, "stripe", false, afar), Err("BINDING_REQUIRED"));
    assert_eq!(given(&class, "stripe", true, afar), Ok(()));
    assert_eq!(given(&class, "stripe", false, Origin::Local), Ok(()));
    assert_eq!(given(&class, "twilio", false, afar), Ok(()), "another secret");
    let free = class.replace("ttl_max", "require_binding = false\nttl_max");
    assert_eq!(given(&free, "stripe", false, afar), Ok(()));
    // And it is held down as all that reaches a class.
    let found = problems(&with(&class, &grants.replace("120", "121")));
    assert!(found.len() == 1 && found[0].contains("121 s exceed the 120 s"), "{found:?}");
}

#[test]
fn a_credential_is_renewed_as_often_as_its_grant_says_and_not_once_more() {
    let of = |more: &str| tenant(&map(&with("", &format!("{FITTING}\n{more}"))), "acme");
    for (more, allowed, refused) in [("max_renewals = 0", None, 1), ("max_renewals = 3", Some(3), 4)] {
        let trust = of(more);
        assert_eq!(asked(&trust, 0, true, None), Ok(120), "{more}: the first is no renewal");
        assert_eq!(asked(&trust, 0, true, allowed), Ok(120), "{more}");
        assert_eq!(asked(&trust, 0, true, Some(refused)).map_err(|why| why.reason()), Err("RENEWALS_USED_UP"));
    }
    assert_eq!(asked(&of(""), 0, true, Some(u32::MAX)), Ok(120));
    let over = problems(&with("", &format!("{FITTING}\nmax_renewals = 86401"))).join("\n");
    assert!(over.contains("grant.max_renewals: is not within its limits"), "{over}");
    let without = String::from_utf8(of("").to_bytes()).expect("JSON");
    assert!(!without.contains("max_renewals") && !without.contains("resource_classes"));
    // What lives is not ended by a lower limit; an approval is of the same grant.
    let lower = diff_tenant(Some(&of("max_renewals = 3")), Some(&of("max_renewals = 2")));
    assert_eq!((lower.len(), lower[0].cut_scope()), (1, None));
    let terms = |trust: &TenantTrust| trust.grants().values().next().expect("a grant").terms();
    assert_eq!(terms(&of("max_renewals = 3")), terms(&of("")));
}

/// Everything of `grants` partners and resources, asked by each workload: what a grant names is allowed, and nothing else.
#[test]
fn a_partner_reaches_what_its_grants_name_and_nothing_else() {
    const RESOURCES: [&str; 6] = [
        "https://api.test",
        "https://api.test/orders",
        "https://api.test/orders/7",
        "https://api.test/orders/7/lines",
        "https://api.test/ordersx",
        "https://ledger.test/books",
    ];
    const PATTERNS: [&str; 5] = [
        "https://api.test",
        "https://api.test/orders/*",
        "https://api.test/orders/7/*",
        "https://api.test/orders",
        "https://ledger.test/*",
    ];
    // Which resources each pattern stands for, written out.
    const FITS: [&[usize]; 5] = [&[0], &[2, 3], &[3], &[1], &[5]];
    let (partners, workloads) = (["payco", "other"], ["ci", "cd"]);
    let cd = "[[workload]]\ntenant = \"acme\"\nname = \"cd\"\nenvironment = \"prod\"\n\
              selectors = [{ spiffe_id = \"spiffe://acme.test/cd\" }]\n";
    // One grant each: the pattern, the partner and the workload by turns.
    let of = |n: usize| (PATTERNS[n % 5], partners[n / 5 % 2], workloads[n / 2 % 2]);
    for chosen in 0_usize..32 {
        let named: Vec<usize> = (0..10).filter(|n| (chosen * 7 + n * n) % 3 == 0).collect();
        let grants: String = named
            .iter()
            .map(|&n| {
                let (pattern, partner, workload) = of(n);
                let more =
                    format!("audiences = [\"{pattern}\"]\npartner = \"{partner}\"\nworkloads = [\"{workload}\"]");
                grant(&format!("g{n}"), &more)
            })
            .collect();
        let trust = tenant(&map(&format!("{BASE}{cd}{grants}")), "acme");
        for partner in partners {
            for workload in workloads {
                for (at, resource) in RESOURCES.iter().enumerate() {
                    let allowed = named.iter().any(|&n| {
                        let (_, by, who) = of(n);
                        by == partner && who == workload && FITS[n % 5].contains(&at)
                    });
                    let found = reaches(&trust, partner, workload, resource);
                    assert_eq!(found, allowed, "{named:?}: {partner} by {workload} to {resource}");
                }
            }
        }
    }
}

/// Two grants that fit allow it, too: then one is to be named.
fn reaches(trust: &TenantTrust, partner: &str, workload: &str, resource: &str) -> bool {
    let asked = Asked {
        workload: &workload.parse().expect("a name"),
        partner: &partner.parse().expect("a name"),
        purpose: &"deploy".parse().expect("a name"),
        grant: None,
        kind: CredentialKind::Jwt,
        audiences: &[resource.to_owned()],
        actions: &[],
        dns_names: &[],
        ttl_seconds: 0,
        binding: BindingWish::Default,
    };
    let facts = Facts {
        basis: (1, 2),
        task_deadline: None,
        proof_expires: None,
        issuer_expires: None,
        has_certificate: true,
        attest_by: &|_: &GrantName| None::<Timestamp>,
        proofs: vec![],
        origin: Origin::Unknown,
        approved: &[],
        scene: Scene::default(),
    };
    match decide(trust, &asked, &facts, now()) {
        Ok(_) | Err(Denied::GrantAmbiguous(..)) => true,
        Err(_) => false,
    }
}
