//! What stands beside an export: the card and the bill of materials, written from the run's lock.

use std::path::Path;

use seedcorn_adapters::folder::{BOM_FILE, CARD_FILE};
use serde_json::Value;

use super::licence::Licence;
use super::origin::Named;
use super::{bom, card};
use crate::checkpoint::atomic;
use crate::evidence::{File, Lock, ModelFiles};

/// What was exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A PEFT adapter.
    Adapter,
    /// A whole model, in the number type that its configuration names.
    Merged,
}

/// Everything that a card and a bill of materials say.
pub struct Export<'a> {
    /// What was exported.
    pub kind: Kind,
    /// The base model.
    pub base: &'a ModelFiles,
    /// The base's configuration.
    pub config: &'a Value,
    /// The run, with its results; `None` for an adapter of which no run is known.
    pub run: Option<&'a Lock>,
    /// The adapter that was merged.
    pub adapter: &'a [File],
    /// The exported files.
    pub files: &'a [File],
}

impl Export<'_> {
    /// Writes both files into the export's folder, each as a whole.
    ///
    /// The same run gives the same bytes: there is no time and no path of the machine in them.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, folder: &Path) -> std::io::Result<()> {
        atomic::write_file(&folder.join(CARD_FILE), card::text(self).as_bytes())?;
        atomic::write_file(&folder.join(BOM_FILE), bom::text(self).as_bytes())
    }

    pub(super) fn base_named(&self) -> Named {
        Named::of(&self.base.source, self.base.revision.as_deref())
    }

    /// Returns a name for what was exported, made from the base's. Terms that ask for a beginning get it.
    pub(super) fn name(&self) -> String {
        let suffix = match self.kind {
            Kind::Adapter => "lora",
            Kind::Merged => "merged",
        };
        let name = format!("{}-{suffix}", self.base_named().short);
        let licence = self.base.license.as_ref().map(super::Statement::licence);
        let Some(Licence::Terms(terms)) = licence else { return name };
        match terms.name_prefix {
            Some(prefix) if !is_prefix(prefix, &name) => format!("{}-{name}", prefix.replace(' ', "-")),
            _ => name,
        }
    }
}

/// Whether a name begins with a prefix, whatever separates its words.
fn is_prefix(prefix: &str, name: &str) -> bool {
    let words = |text: &str| text.to_lowercase().replace(['-', '_'], " ");
    words(name).starts_with(&words(prefix))
}
