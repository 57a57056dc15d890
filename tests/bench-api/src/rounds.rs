//! Interleaved rounds: every server takes its turn in each, so that what changes over time changes for all alike.

use anyhow::Result;

use crate::contender::Contender;

/// What a server came to, beside the peer.
#[derive(Debug, Clone, Copy)]
pub struct Figure {
    /// The median over the rounds.
    pub value: f64,
    /// The median over the rounds of the quotient with the peer in the same round.
    pub ratio: f64,
    /// Half the width between the quartiles of the quotients.
    pub spread: f64,
}

/// What was measured of one server.
#[derive(Debug, Clone, Default)]
pub struct Measured {
    /// One value a round.
    pub values: Vec<f64>,
    /// Why there are no more: a server that failed once is not asked again.
    pub failure: Option<String>,
}

/// Measures each server once a round, beginning with another one each time.
pub async fn interleave<'a>(
    rounds: usize,
    contenders: &'a [Contender],
    mut measure: impl AsyncFnMut(&'a Contender, usize) -> Result<f64>,
) -> Vec<Measured> {
    let mut measured = vec![Measured::default(); contenders.len()];
    for round in 0..rounds {
        for turn in 0..contenders.len() {
            let which = (turn + round) % contenders.len();
            if measured[which].failure.is_some() {
                continue;
            }
            match measure(&contenders[which], round).await {
                Ok(value) => measured[which].values.push(value),
                Err(error) => {
                    measured[which].failure = Some(format!("{}: {error:#}", contenders[which].name))
                }
            }
        }
    }
    measured
}

/// Compares a server with the peer, round by round. None of nothing.
pub fn compare(of: &[f64], peer: &[f64]) -> Option<Figure> {
    let ratios: Vec<f64> = of.iter().zip(peer).map(|(a, b)| a / b).collect();
    let spread = (quantile(ratios.clone(), 0.75)? - quantile(ratios.clone(), 0.25)?) / 2.0;
    Some(Figure { value: quantile(of.to_vec(), 0.5)?, ratio: quantile(ratios, 0.5)?, spread })
}

/// The value below which this part of the values lies; none of nothing.
pub fn quantile(mut values: Vec<f64>, part: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let at = part * values.len().checked_sub(1)? as f64;
    let (low, high) = (values[at.floor() as usize], values[at.ceil() as usize]);
    Some(low + (high - low) * at.fract())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_the_median_of_the_rounds_not_the_quotient_of_medians() {
        let figure = compare(&[10.0, 20.0, 30.0], &[10.0, 10.0, 60.0]).unwrap();
        assert_eq!((figure.value, figure.ratio), (20.0, 1.0));
        assert!(compare(&[], &[]).is_none());
    }
}
