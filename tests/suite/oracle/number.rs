//! A number that knows what it was computed from: reverse-mode differentiation of one scalar operation after the other.
//!
//! Every operation appends a node to the tape of its thread: the nodes it read, and its partial derivatives there. One walk
//! back along the tape then yields the derivative of the last node at all others (Griewank & Walther 2008, "Evaluating
//! derivatives", chapter 3).

use std::cell::{Cell, RefCell};
use std::f64::consts::FRAC_1_SQRT_2;
use std::ops::{Add, Div, Mul, Sub};

/// The nodes that an operation read with its derivatives there, and the bound of the gradient that passes.
struct Node {
    from: [(usize, f64); 2],
    bound: f64,
}

thread_local! {
    static TAPE: RefCell<Vec<Node>> = const { RefCell::new(Vec::new()) };
    static MARGIN: Cell<f64> = const { Cell::new(f64::INFINITY) };
}

/// A value and its place on the tape.
#[derive(Clone, Copy, Debug)]
pub(super) struct Number {
    pub(super) value: f64,
    node: usize,
}

/// Empties the tape.
pub(super) fn begin() {
    TAPE.with_borrow_mut(Vec::clear);
    MARGIN.set(f64::INFINITY);
}

/// The least distance of any number from a place where a function or a gradient that it passed has a kink.
pub(super) fn margin() -> f64 {
    MARGIN.get()
}

fn meet_kink(distance: f64) {
    MARGIN.set(MARGIN.get().min(distance.abs()));
}

/// The derivatives of `loss` at all nodes.
pub(super) fn derivatives(loss: Number) -> Derivatives {
    TAPE.with_borrow(|tape| {
        let mut all = vec![0.0f64; tape.len()];
        all[loss.node] = 1.0;
        for (place, node) in tape.iter().enumerate().rev() {
            if node.bound.is_finite() {
                meet_kink(all[place].abs() - node.bound);
                all[place] = all[place].clamp(-node.bound, node.bound);
            }
            for (from, partial) in node.from {
                let passed = all[place] * partial;
                if from != place {
                    all[from] += passed;
                }
            }
        }
        Derivatives(all)
    })
}

/// What [`derivatives`] yields.
pub(super) struct Derivatives(Vec<f64>);

impl Derivatives {
    pub(super) fn at(&self, numbers: &[Number]) -> Vec<f64> {
        numbers.iter().map(|number| self.0[number.node]).collect()
    }
}

impl Number {
    fn new(value: f64, from: [(usize, f64); 2], bound: f64) -> Self {
        let node = TAPE.with_borrow_mut(|tape| {
            tape.push(Node { from, bound });
            tape.len() - 1
        });
        Self { value, node }
    }

    /// A number that was computed from nothing.
    pub(super) fn constant(value: f64) -> Self {
        Self::new(value, [(0, 0.0); 2], f64::INFINITY)
    }

    fn map(self, value: f64, slope: f64) -> Self {
        Self::new(value, [(self.node, slope), (0, 0.0)], f64::INFINITY)
    }

    /// The same value in a node of its own, which the gradient passes between ±`bound`.
    pub(super) fn bounded_gradient(self, bound: f64) -> Self {
        Self::new(self.value, [(self.node, 1.0), (0, 0.0)], bound)
    }

    pub(super) fn exp(self) -> Self {
        self.map(self.value.exp(), self.value.exp())
    }

    pub(super) fn ln(self) -> Self {
        self.map(self.value.ln(), 1.0 / self.value)
    }

    pub(super) fn sqrt(self) -> Self {
        self.map(self.value.sqrt(), 0.5 / self.value.sqrt())
    }

    /// Towards a pole errors grow without bound: beyond ±π/4 it counts as one.
    pub(super) fn tan(self) -> Self {
        meet_kink((self.value.cos().abs() - FRAC_1_SQRT_2).max(0.0));
        self.map(self.value.sin() / self.value.cos(), 1.0 / self.value.cos().powi(2))
    }

    /// Whether it is above `kink`.
    pub(super) fn is_above(self, kink: f64) -> bool {
        meet_kink(self.value - kink);
        self.value > kink
    }

    /// min(`high`, max(`low`, x)): where a bound holds, no gradient flows.
    pub(super) fn clamp(self, low: f64, high: f64) -> Self {
        match (self.is_above(low), self.is_above(high)) {
            (false, _) => Self::constant(low),
            (_, true) => Self::constant(high),
            _ => self,
        }
    }
}

impl Add for Number {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self::new(self.value + other.value, [(self.node, 1.0), (other.node, 1.0)], f64::INFINITY)
    }
}

impl Sub for Number {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self::new(self.value - other.value, [(self.node, 1.0), (other.node, -1.0)], f64::INFINITY)
    }
}

impl Mul for Number {
    type Output = Self;
    fn mul(self, other: Self) -> Self {
        let from = [(self.node, other.value), (other.node, self.value)];
        Self::new(self.value * other.value, from, f64::INFINITY)
    }
}

impl Div for Number {
    type Output = Self;
    fn div(self, other: Self) -> Self {
        let value = self.value / other.value;
        Self::new(value, [(self.node, 1.0 / other.value), (other.node, -value / other.value)], f64::INFINITY)
    }
}

impl Mul<Number> for f64 {
    type Output = Number;
    fn mul(self, other: Number) -> Number {
        other.map(self * other.value, self)
    }
}

impl Add<Number> for f64 {
    type Output = Number;
    fn add(self, other: Number) -> Number {
        other.map(self + other.value, 1.0)
    }
}
