//! A pass through a model. Of a decoder in parts, what is needed is put together when the pass comes to it, and what comes
//! next is on its way; of a whole one everything is there.

use rayon::prelude::*;
use seedcorn_kernels::frozen::FrozenWeight;

use super::{Cut, Shards, SharedTable};
use crate::model::decoder::{Decoder, Model};
use crate::parallel::{Bytes, EMBEDDING, Gathering, ParallelError, Ranks, WEIGHTS, expect_bytes};

/// Which way a pass takes. Ranks that share a decoder take the same way at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// The blocks, then the head.
    Forward,
    /// The same, and the blocks from the last to the first.
    Training,
}

/// Something that is put together for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Block(usize),
    /// A range of the head's rows.
    Head(usize),
}

impl Pass {
    fn stops(self, blocks: usize, ranges: usize) -> Vec<Stop> {
        let forward = (0..blocks).map(Stop::Block).chain((0..ranges).map(Stop::Head));
        match self {
            Self::Forward => forward.collect(),
            Self::Training => forward.chain((0..blocks).rev().map(Stop::Block)).collect(),
        }
    }
}

/// A pass, as far as it has come.
#[derive(Debug)]
pub(in crate::model) struct Walk<'a> {
    decoder: &'a Decoder,
    apart: Option<Apart<'a>>,
}

/// A pass through a decoder in parts.
#[derive(Debug)]
struct Apart<'a> {
    shards: &'a Shards,
    ranks: &'a Ranks<'a>,
    decoder: &'a Decoder,
    step: u64,
    stops: std::vec::IntoIter<Stop>,
    coming: Option<(Stop, Gathering<'a>)>,
    here: Option<usize>,
}

impl<'a> Walk<'a> {
    /// Sets out; the first block of a decoder in parts is on its way.
    ///
    /// # Errors
    /// [`ParallelError`]
    ///
    /// # Panics
    /// When the decoder is in parts and there is no one to ask for the others.
    pub(in crate::model) fn new(model: Model<'a>, pass: Pass) -> Result<Self, ParallelError> {
        let Model { decoder, ranks, step } = model;
        let Some(shards) = &decoder.shards else { return Ok(Self { decoder, apart: None }) };
        let ranks = ranks.expect("a decoder in parts is used with its ranks");
        let stops = pass.stops(decoder.blocks.len(), shards.head().ranges()).into_iter();
        let mut apart = Apart { shards, ranks, decoder, step, stops, coming: None, here: None };
        apart.depart()?;
        Ok(Self { decoder, apart: Some(apart) })
    }

    /// Looks up the embeddings of tokens: `[tokens, d]`. Those of another slice of the model are left as they are. The first
    /// thing of a pass.
    ///
    /// # Errors
    /// [`ParallelError`]
    pub(in crate::model) fn embed(&self, ids: &[u32], out: &mut [f32]) -> Result<(), ParallelError> {
        let table = &self.decoder.embed;
        let Some(apart) = &self.apart else {
            let here = self.decoder.vocabulary();
            out.par_chunks_exact_mut(table.shape()[1]).zip(ids).with_min_len(64).for_each(|(row, &id)| {
                if here.contains(&(id as usize)) {
                    table.read_row(id as usize - here.start, row);
                }
            });
            return Ok(());
        };
        apart.embed(ids, out)
    }

    /// Comes to a block: its weights are there until the next stop.
    ///
    /// # Errors
    /// [`ParallelError`]
    pub(in crate::model) fn block(&mut self, layer: usize) -> Result<(), ParallelError> {
        let Some(apart) = &mut self.apart else { return Ok(()) };
        let parts = apart.arrive(Stop::Block(layer))?;
        apart.shards.bring(&apart.decoder.blocks[layer], &parts);
        apart.here = Some(layer);
        drop(parts);
        apart.depart()
    }

    /// Lets what comes next go on, in the middle of a block.
    pub(in crate::model) fn poll(&mut self) {
        if let Some((_, gathering)) = self.apart.as_mut().and_then(|apart| apart.coming.as_mut()) {
            gathering.poll();
        }
    }

    /// Whether the decoder is in parts, so that its head comes in ranges of rows.
    pub(in crate::model) fn is_apart(&self) -> bool {
        self.apart.is_some()
    }

    /// Returns how many ranges those are.
    pub(in crate::model) fn head_ranges(&self) -> usize {
        self.apart.as_ref().map_or(0, |apart| apart.shards.head().ranges())
    }

    /// Comes to a range of the head's rows: the first row, of the whole model, and the rows.
    ///
    /// # Errors
    /// [`ParallelError`]
    ///
    /// # Panics
    /// When the head is there as a whole.
    pub(in crate::model) fn head(&mut self, range: usize) -> Result<(usize, FrozenWeight), ParallelError> {
        let apart = self.apart.as_mut().expect("only a head in parts comes in ranges");
        let parts = apart.arrive(Stop::Head(range))?;
        let head = apart.shards.head();
        let weight = head.weight(range, &parts);
        drop(parts);
        apart.depart()?;
        Ok((apart.decoder.vocabulary().start + head.start(range), weight))
    }

    /// Ends the pass.
    ///
    /// # Panics
    /// When a stop was left out, for which other ranks would wait.
    pub(in crate::model) fn end(mut self) {
        if let Some(apart) = &mut self.apart {
            apart.leave();
            assert!(apart.coming.is_none(), "a pass ends after its last stop");
        }
    }

    /// Takes the whole pass without computing, so that others get this rank's parts.
    ///
    /// # Errors
    /// [`ParallelError`]
    pub(in crate::model) fn serve(mut self) -> Result<(), ParallelError> {
        self.embed(&[], &mut [])?;
        let Some(apart) = &mut self.apart else { return Ok(()) };
        while let Some((stop, _)) = &apart.coming {
            let stop = *stop;
            drop(apart.arrive(stop)?);
            apart.depart()?;
        }
        Ok(())
    }
}

impl Apart<'_> {
    /// Begins to gather what comes next.
    fn depart(&mut self) -> Result<(), ParallelError> {
        let Some(stop) = self.stops.next() else { return Ok(()) };
        let (own, lengths) = match stop {
            Stop::Block(layer) => {
                (&self.shards.blocks[layer], self.shards.lengths(&self.decoder.blocks[layer]))
            }
            Stop::Head(range) => (self.shards.head().own(range), self.shards.head().lengths(range)),
        };
        self.coming = Some((stop, self.ranks.start_gather(WEIGHTS, self.step, own.clone(), lengths)?));
        Ok(())
    }

    /// Leaves where the pass is, and waits for what comes next.
    fn arrive(&mut self, stop: Stop) -> Result<Vec<Bytes>, ParallelError> {
        self.leave();
        let (next, gathering) = self.coming.take().expect("a stop of this pass");
        assert_eq!(next, stop, "a pass goes from stop to stop");
        self.ranks.finish_gather(gathering)
    }

    fn leave(&mut self) {
        if let Some(layer) = self.here.take() {
            self.decoder.blocks[layer].weights().for_each(FrozenWeight::leave);
        }
    }

    /// Asks the ranks that keep them for the rows of tokens.
    fn embed(&self, ids: &[u32], out: &mut [f32]) -> Result<(), ParallelError> {
        let (table, Cut { count, .. }) = (&self.shards.embed, self.shards.cut);
        let here = self.decoder.vocabulary();
        let own = |id: u32| here.contains(&(id as usize)).then(|| id - here.start as u32);
        let mut rows: Vec<u32> = ids.iter().filter_map(|id| own(*id)).collect();
        rows.sort_unstable();
        rows.dedup();
        let mut wanted = vec![Vec::new(); count];
        for row in rows {
            wanted[table.keeper(row as usize)].push(row);
        }
        let requests: Vec<&[u8]> = wanted.iter().map(|rows| bytemuck::cast_slice(rows)).collect();
        let requests = self.ranks.exchange_shares(EMBEDDING, self.step, &requests)?;
        let each = requests.iter().enumerate();
        let answers: Result<Vec<Vec<u8>>, _> =
            each.map(|(index, rows)| self.answer(table, self.ranks.rank_of_share(index), rows)).collect();
        let answers = answers?;
        let answers: Vec<&[u8]> = answers.iter().map(Vec::as_slice).collect();
        let found = self.ranks.exchange_shares(EMBEDDING, self.step, &answers)?;
        let width = table.row_bytes();
        for (index, (rows, found)) in wanted.iter().zip(&found).enumerate() {
            expect_bytes(
                self.ranks.rank_of_share(index),
                EMBEDDING,
                self.step,
                found.len(),
                rows.len() * width,
            )?;
        }
        out.par_chunks_exact_mut(self.decoder.spec.hidden_size).zip(ids).with_min_len(64).for_each(
            |(out, id)| {
                let Some(row) = own(*id) else { return };
                let keeper = table.keeper(row as usize);
                let place = wanted[keeper].binary_search(&row).expect("every row was asked for");
                table.decode(&found[keeper][place * width..][..width], out);
            },
        );
        Ok(())
    }

    /// Looks up what another rank asks for.
    fn answer(&self, table: &SharedTable, rank: usize, asked: &[u8]) -> Result<Vec<u8>, ParallelError> {
        let (rows, rest) = asked.as_chunks::<4>();
        let mut answer = Vec::with_capacity(rows.len() * table.row_bytes());
        for row in rows {
            let row = u32::from_ne_bytes(*row) as usize;
            let Some(bytes) = table.row(row).filter(|_| rest.is_empty()) else {
                let (op, step) = (EMBEDDING, self.step);
                let (got, expected) = (format!("row {row}"), "a row that is kept here".to_owned());
                return Err(ParallelError::OutOfStep { rank, op, step, got, expected });
            };
            answer.extend_from_slice(bytes);
        }
        Ok(answer)
    }
}
