//! Which snapshots may be based on which, so that a removal need not read every record. In memory only: made from the records of a tenant when it is
//! first asked for, and told of every record before that is written. So it may name too many, never too few; who asks looks at the records.

use std::collections::{BTreeSet, HashMap};

use crate::Result;

/// Parent to children, of one tenant.
type Family = HashMap<String, BTreeSet<String>>;

/// By the prefix of the tenant's keys.
#[derive(Debug, Default)]
pub(crate) struct Children(HashMap<String, Family>);

impl Children {
    pub(crate) fn add(&mut self, prefix: &str, parent: &str, child: &str) {
        // Not asked for yet: the records will tell.
        if let Some(family) = self.0.get_mut(prefix) {
            family.entry(parent.to_owned()).or_default().insert(child.to_owned());
        }
    }

    /// One that is really based on the parent; those that are not are forgotten. `all`: every child with its parent, for the first time.
    pub(crate) fn find(
        &mut self,
        prefix: &str,
        parent: &str,
        all: impl FnOnce() -> Result<Vec<(String, String)>>,
        is_child: impl Fn(&str) -> Result<bool>,
    ) -> Result<Option<String>> {
        if !self.0.contains_key(prefix) {
            let mut family = Family::new();
            for (child, of) in all()? {
                family.entry(of).or_default().insert(child);
            }
            self.0.insert(prefix.to_owned(), family);
        }
        let Some(family) = self.0.get_mut(prefix) else { return Ok(None) };
        let Some(children) = family.get_mut(parent) else { return Ok(None) };
        while let Some(child) = children.first() {
            if is_child(child)? {
                return Ok(Some(child.clone()));
            }
            children.pop_first();
        }
        family.remove(parent);
        Ok(None)
    }
}
