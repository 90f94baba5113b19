//! What is known of the licences of a run's sources, and when it is asked.

use std::path::Path;

use seedcorn_data::source::{self, CardKind, Resolver, Source, SourceError};

use super::front_matter;
use super::licence::Licence;
use super::policy::{self, PolicyError, Stage};
use super::statement::{Origin, Statement};
use super::terms::Terms;
use super::wheel;
use crate::base::Base;
use crate::recipe::{AdapterStart, DataSource, Location, Recipe};

/// The statements about one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its key in the recipe.
    pub key: String,
    /// The source as typed.
    pub source: String,
    /// What is stated, the most particular first.
    pub statements: Vec<Statement>,
    /// Why its card could not be read, if it could not.
    pub unasked: Option<String>,
    /// The text to open.
    resolved: String,
}

/// The statements about every source of a recipe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Licences {
    /// The base model.
    pub model: Found,
    /// The adapter that the run continues from.
    pub adapter: Option<Found>,
    /// Training sources, in the recipe's order.
    pub train: Vec<Found>,
    /// Held-out sources, in the recipe's order.
    pub eval: Vec<Found>,
}

impl Found {
    fn stated(key: &str, location: &Location, stated: Option<&String>) -> Self {
        let statement = stated.and_then(|id| Statement::read(id, None, None, Origin::Recipe));
        Self {
            key: key.to_owned(),
            source: location.typed().to_owned(),
            statements: statement.into_iter().collect(),
            unasked: None,
            resolved: location.resolved(),
        }
    }

    /// Asks about a base model that is used outside a run.
    pub fn of_base(base: &Base, resolver: &Resolver) -> Self {
        let mut found = Self {
            key: "--base".to_owned(),
            source: base.name.clone(),
            statements: Vec::new(),
            unasked: None,
            resolved: base.name.clone(),
        };
        found.ask(resolver);
        found.read_base(base);
        found
    }

    /// Returns the statement that counts.
    pub fn statement(&self) -> Option<&Statement> {
        self.statements.first()
    }

    /// Reads the card; what it said before is forgotten.
    fn ask(&mut self, resolver: &Resolver) {
        self.statements.retain(|one| !matches!(one.from, Origin::Card | Origin::Wheel));
        let card =
            Source::parse(&self.resolved, Path::new("")).and_then(|source| source::card(&source, resolver));
        match card {
            Ok(card) => {
                self.unasked = None;
                self.add(card.and_then(|card| match card.kind {
                    CardKind::Readme => front_matter::statement(&card.text),
                    CardKind::WheelMetadata => wheel::statement(&card.text),
                }));
            }
            Err(error) => self.unasked = Some(reason(&error)),
        }
    }

    /// Adds what the file of a base model says, or else its name.
    fn read_base(&mut self, base: &Base) {
        self.add(base.about.as_ref().and_then(Statement::of_gguf));
        if self.statements.is_empty() {
            let named = base.about.as_ref().and_then(|about| about.name.as_deref());
            let terms = named.and_then(Terms::of_name).or_else(|| Terms::of_name(short_name(&self.source)));
            self.add(terms.and_then(|terms| Statement::read(terms.id, None, None, Origin::Name)));
        }
    }

    fn add(&mut self, statement: Option<Statement>) {
        self.statements.extend(statement);
        self.statements.sort_by_key(|one| one.from);
    }

    /// Whether only the file itself can tell: a GGUF file names its licence.
    fn may_say_more(&self) -> bool {
        self.key == "model.source" && Path::new(&self.source).extension().is_some_and(|ext| ext == "gguf")
    }

    /// Lists what two statements disagree about, for a warning.
    fn disagreements(&self) -> impl Iterator<Item = String> {
        let counting = self.statement();
        let others = self.statements.iter().skip(1);
        others.filter_map(move |other| {
            let counting = counting.filter(|counting| counting.id != other.id)?;
            let Self { key, source, .. } = self;
            Some(format!(
                "two licences of `{key}` (`{source}`): {} ({}), {} ({}); the first counts",
                counting.id, counting.from, other.id, other.from
            ))
        })
    }

    /// Says what community terms ask for.
    fn terms(&self) -> Option<String> {
        let stated = self.statement()?;
        let Licence::Terms(terms) = stated.licence() else { return None };
        let link = stated.link.as_deref().unwrap_or(terms.link);
        let Terms { name, asks, .. } = terms;
        Some(format!("terms: `{}` is under the {name}: they ask {asks} ({link})", self.source))
    }

    fn shown(&self) -> String {
        match (self.statement(), &self.unasked) {
            (Some(one), _) => format!("{} ({})", one.id, one.from),
            (None, Some(why)) => format!("unknown ({why})"),
            (None, None) => "unknown".to_owned(),
        }
    }
}

impl Licences {
    /// Starts with what the recipe states itself.
    pub fn stated(recipe: &Recipe) -> Self {
        let data = |key: &str, list: &[DataSource]| -> Vec<Found> {
            let one = |(at, one): (usize, &DataSource)| {
                Found::stated(&format!("{key}.{at}.source"), &one.source, one.license.as_ref())
            };
            list.iter().enumerate().map(one).collect()
        };
        let adapter = match &recipe.adapter.start {
            AdapterStart::From { from } => Some(Found::stated("adapter.from", from, None)),
            AdapterStart::Fresh(_) => None,
        };
        Self {
            model: Found::stated("model.source", &recipe.model.source, recipe.model.license.as_ref()),
            adapter,
            train: data("data.train", &recipe.data.train),
            eval: data("data.eval", &recipe.data.eval),
        }
    }

    /// Asks for every card before anything else is fetched, where there is a policy to hold them against.
    ///
    /// # Errors
    /// A source that the policy refuses.
    pub fn before(&mut self, recipe: &Recipe, resolver: &Resolver) -> Result<(), PolicyError> {
        let Some(policy) = &recipe.policy else { return Ok(()) };
        for found in self.all_mut() {
            found.ask(resolver);
        }
        let more = |found: &Found| found.unasked.is_some() || found.may_say_more();
        self.all().try_for_each(|found| {
            let stage = if more(found) { Stage::Early } else { Stage::Final };
            policy::check(policy, found, stage)
        })
    }

    /// Completes what is known of the base, whose files are there.
    ///
    /// # Errors
    /// A base that the policy refuses.
    pub fn of_base(&mut self, base: &Base, recipe: &Recipe, resolver: &Resolver) -> Result<(), PolicyError> {
        self.model.ask(resolver);
        self.model.read_base(base);
        match &recipe.policy {
            Some(policy) => policy::check(policy, &self.model, Stage::Final),
            None => Ok(()),
        }
    }

    /// Completes what is known of the data and the adapter, whose files are there.
    ///
    /// # Errors
    /// A source that the policy refuses.
    pub fn of_data(&mut self, recipe: &Recipe, resolver: &Resolver) -> Result<(), PolicyError> {
        for found in self.all_mut().skip(1) {
            found.ask(resolver);
        }
        let Some(policy) = &recipe.policy else { return Ok(()) };
        self.all().try_for_each(|found| policy::check(policy, found, Stage::Final))
    }

    /// Describes the licences, for the plan of a run.
    pub fn lines(&self) -> Vec<String> {
        let mut data: Vec<String> = Vec::new();
        for shown in self.train.iter().chain(&self.eval).map(Found::shown) {
            if !data.contains(&shown) {
                data.push(shown);
            }
        }
        let adapter = self.adapter.as_ref().map_or(String::new(), |one| format!("; adapter {}", one.shown()));
        let mut lines =
            vec![format!("licences: base {}{adapter}; data {}", self.model.shown(), data.join(", "))];
        lines.extend(self.all().filter_map(Found::terms));
        lines
    }

    /// Says what disagrees, and what the policy wants to be told.
    pub fn warnings(&self, recipe: &Recipe) -> Vec<String> {
        let unknown = self.all().filter_map(|found| policy::warning(recipe.policy.as_ref()?, found));
        self.all().flat_map(Found::disagreements).chain(unknown).collect()
    }

    fn all(&self) -> impl Iterator<Item = &Found> {
        [&self.model].into_iter().chain(&self.adapter).chain(&self.train).chain(&self.eval)
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut Found> {
        [&mut self.model].into_iter().chain(&mut self.adapter).chain(&mut self.train).chain(&mut self.eval)
    }
}

/// Returns the last part of a source's name: of a repository, a folder or a file.
pub(super) fn short_name(source: &str) -> &str {
    let whole = source.strip_prefix("hf:").map_or(source, |repo| repo.split('@').next().unwrap_or(repo));
    let whole = whole.trim_end_matches('/');
    whole.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or(whole)
}

fn reason(error: &SourceError) -> String {
    match error {
        SourceError::Offline { .. } => "its card is not in the cache, and this run is offline".to_owned(),
        other => other.to_string().lines().next().unwrap_or_default().to_owned(),
    }
}
