//! Interleaved rounds: every path takes its turn in each, so that what changes over time changes for all alike.

use anyhow::{Context, Result};
use nix::libc;

use crate::worker::Slice;

/// What a path came to, beside the first one of its case.
#[derive(Debug, Clone, Copy)]
pub struct Figure {
    /// The median over the rounds.
    pub value: f64,
    /// The median over the rounds of the quotient with the first path in the same round.
    pub ratio: f64,
    /// Half the width of a 95 % interval of that median (McGill, Tukey, Larsen 1978).
    pub spread: f64,
}

/// Runs each path once a round, beginning with another one each time. One vector of slices a path.
pub fn interleave(
    rounds: usize,
    paths: usize,
    mut run: impl FnMut(usize) -> Result<Slice>,
) -> Result<Vec<Vec<Slice>>> {
    let mut slices = vec![Vec::with_capacity(rounds); paths];
    for path in 0..paths {
        // Caches, neighbours and branch predictors warm up.
        run(path)?;
    }
    for round in 0..rounds {
        for turn in 0..paths {
            let path = (turn + round) % paths;
            slices[path].push(run(path)?);
        }
    }
    Ok(slices)
}

/// Compares a path with the first of its case, round by round.
pub fn compare(of: &[Slice], first: &[Slice], part: impl Fn(&Slice) -> f64) -> Option<Figure> {
    let ratios: Vec<f64> = of.iter().zip(first).map(|(a, b)| part(a) / part(b)).collect();
    let value = quantile(of.iter().map(&part).collect(), 0.5)?;
    let ratio = quantile(ratios.clone(), 0.5)?;
    let width = quantile(ratios.clone(), 0.75)? - quantile(ratios.clone(), 0.25)?;
    Some(Figure { value, ratio, spread: 1.57 * width / (ratios.len() as f64).sqrt() })
}

/// The value below which this part of the values lies; `None` of nothing.
pub fn quantile(mut values: Vec<f64>, part: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let at = part * values.len().checked_sub(1)? as f64;
    let (low, high) = (values[at.floor() as usize], values[at.ceil() as usize]);
    Some(low + (high - low) * at.fract())
}

/// CPU nanoseconds of this process, all threads.
pub fn process_cpu_ns() -> u64 {
    clock_ns(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// CPU nanoseconds of this thread.
pub fn thread_cpu_ns() -> u64 {
    clock_ns(libc::CLOCK_THREAD_CPUTIME_ID)
}

fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the place lives through the call; the clocks are always there.
    unsafe { libc::clock_gettime(clock, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// The median of values that are known to be some.
pub fn median(values: Vec<f64>) -> Result<f64> {
    quantile(values, 0.5).context("nothing was measured")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slices(values: &[f64]) -> Vec<Slice> {
        values.iter().map(|value| Slice { p50_ns: *value, cpu_ns: 0.0 }).collect()
    }

    #[test]
    fn a_quantile_lies_between_its_neighbours() {
        assert_eq!(quantile(vec![4.0, 1.0, 3.0, 2.0], 0.5), Some(2.5));
        assert_eq!(quantile(vec![4.0, 1.0, 3.0, 2.0], 1.0), Some(4.0));
        assert_eq!(quantile(vec![], 0.5), None);
    }

    #[test]
    fn paths_are_compared_within_a_round_so_that_a_slow_round_is_slow_for_both() {
        let figure = compare(&slices(&[11.0, 110.0, 22.0]), &slices(&[10.0, 100.0, 20.0]), |it| it.p50_ns);
        let figure = figure.expect("a figure");
        assert!((figure.ratio - 1.1).abs() < 1e-9 && figure.spread < 1e-9, "{figure:?}");
        assert_eq!(figure.value, 22.0);
    }

    #[test]
    fn every_path_has_a_slice_of_every_round_and_none_is_always_first() {
        let mut order = Vec::new();
        let slices = interleave(3, 3, |path| {
            order.push(path);
            Ok(Slice { p50_ns: path as f64, cpu_ns: 0.0 })
        });
        let slices = slices.expect("measured");
        assert!(slices.iter().all(|path| path.len() == 3));
        assert_eq!(order[3..], [0, 1, 2, 1, 2, 0, 2, 0, 1]);
    }
}
