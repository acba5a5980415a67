//! Templates: workloads and grants for a set of tenants.

use std::collections::BTreeSet;

use toml::de::DeTable;

use crate::model::TenantName;

use super::{
    gather::{Gather, rows},
    item,
    row::Row,
    source::Source,
    words::Label,
};

impl Gather<'_> {
    /// Expands every `[[template]]` into its tenants, as if each were written out; `{tenant}` in a text becomes the
    /// tenant's name. A template that no tenant matches is not looked into.
    pub(super) fn templates<'t>(&mut self, source: &'t Source<'t>, document: &'t DeTable<'t>) {
        for row in rows("template", source, document, &mut self.problems) {
            row.only(&["name", "tenants", "tenants_with", "workload", "grant"], &mut self.problems);
            // The name is for people; messages give the line.
            let _name = item::name::<Label>(&row, &mut self.problems);
            let Some(tenants) = self.set_of(&row) else { continue };
            for tenant in &tenants {
                let before = self.problems.len();
                self.expand(&row, tenant);
                if self.problems.len() > before {
                    // What is wrong for one is most likely wrong for all: said once.
                    break;
                }
            }
        }
    }

    fn expand<'t>(&mut self, template: &Row<'t>, tenant: &'t TenantName) {
        for (noun, is_grant) in [("workload", false), ("grant", true)] {
            for row in rows(noun, template.source, template.table, &mut self.problems) {
                let row = Row { tenant: Some(tenant), ..row };
                if row.has("tenant") {
                    let help = "remove it: the template names its tenants";
                    row.wrong("tenant", "is not for templates", help, &mut self.problems);
                }
                if is_grant {
                    self.grant(&row, tenant);
                } else {
                    self.workload(&row, tenant);
                }
            }
        }
    }

    /// The tenants a template is for: those listed, or those that carry all the labels listed.
    fn set_of(&mut self, row: &Row<'_>) -> Option<BTreeSet<TenantName>> {
        let help = "write tenants = [\"...\"] or tenants_with = [\"label\"]";
        match (row.has("tenants"), row.has("tenants_with")) {
            (true, false) => {
                let names: Vec<TenantName> = row.list("tenants", Some(help), &mut self.problems)?;
                for name in names.iter().filter(|name| !self.tenants.contains_key(name)) {
                    let message = format!("tenant `{name}` is not defined");
                    row.wrong("tenants", message, "add a [[tenant]] with this name", &mut self.problems);
                }
                Some(names.into_iter().filter(|name| self.tenants.contains_key(name)).collect())
            }
            (false, true) => {
                let labels: Vec<Label> = row.list("tenants_with", Some(help), &mut self.problems)?;
                let carries = |held: &[Label]| labels.iter().all(|label| held.contains(label));
                let with = self
                    .tenants
                    .iter()
                    .filter(|(_, draft)| draft.head.value.as_ref().is_some_and(|head| carries(&head.labels)));
                Some(with.map(|(name, _)| name.clone()).collect())
            }
            (false, false) => {
                row.wrong("tenants", "or tenants_with is missing", help, &mut self.problems);
                None
            }
            (true, true) => {
                row.wrong("tenants_with", "and tenants exclude each other", "remove one", &mut self.problems);
                None
            }
        }
    }
}
