//! Licences and provenance: what sources say about their licences, what a policy makes of it, and the model card
//! and bill of materials that stand beside each export.
//!
//! Described in `docs/provenance.md`.

mod beside;
mod bom;
mod card;
mod export;
mod found;
mod front_matter;
mod hub_ids;
mod licence;
mod origin;
mod policy;
mod sections;
mod statement;
mod terms;
#[cfg(test)]
mod tests;
mod wheel;
mod yaml;

pub use beside::{beside_adapter, beside_merged, beside_merged_of};
pub use export::{Export, Kind};
pub use found::{Found, Licences};
pub use licence::Licence;
pub use policy::PolicyError;
pub use statement::{Origin, Statement};
pub use terms::Terms;
