//! Numbers that are differentiated: each operation appends a node to the tape of its thread, with the nodes that it read and
//! its partial derivatives there. One pass back along the tape then yields the derivatives of the last node at all others
//! (Griewank & Walther 2008, "Evaluating derivatives", chapter 3).

use std::cell::RefCell;
use std::f64::consts::FRAC_1_SQRT_2;
use std::ops::{Add, Div, Mul, Sub};

/// What an operation read, the derivatives there, and the bound of the gradient that passes.
struct Node {
    operands: [(usize, f64); 2],
    bound: f64,
}

struct Tape {
    nodes: Vec<Node>,
    /// The least distance of any number from a kink of a function or of a gradient that it passed.
    margin: f64,
}

thread_local! {
    static TAPE: RefCell<Tape> = const { RefCell::new(Tape { nodes: Vec::new(), margin: f64::INFINITY }) };
}

/// A value and its place on the tape.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Number {
    pub(crate) value: f64,
    node: usize,
}

/// Removes all nodes.
pub(crate) fn clear() {
    TAPE.with_borrow_mut(|tape| tape.nodes.clear());
}

/// The least distance from a kink since the last call.
pub(crate) fn take_margin() -> f64 {
    TAPE.with_borrow_mut(|tape| std::mem::replace(&mut tape.margin, f64::INFINITY))
}

fn pass_kink(distance: f64) {
    TAPE.with_borrow_mut(|tape| tape.margin = tape.margin.min(distance.abs()));
}

/// The derivatives of `loss` at all nodes.
pub(crate) fn derivatives(loss: Number) -> Derivatives {
    TAPE.with_borrow_mut(|tape| {
        let mut all = vec![0.0f64; tape.nodes.len()];
        all[loss.node] = 1.0;
        for (place, node) in tape.nodes.iter().enumerate().rev() {
            if node.bound.is_finite() {
                tape.margin = tape.margin.min((all[place].abs() - node.bound).abs());
                all[place] = all[place].clamp(-node.bound, node.bound);
            }
            for (operand, partial) in node.operands {
                all[operand] += all[place] * partial;
            }
        }
        Derivatives(all)
    })
}

/// What [`derivatives`] yields.
pub(crate) struct Derivatives(Vec<f64>);

impl Derivatives {
    pub(crate) fn at(&self, number: Number) -> f64 {
        self.0[number.node]
    }
}

impl Number {
    fn new(value: f64, operands: [(usize, f64); 2], bound: f64) -> Self {
        TAPE.with_borrow_mut(|tape| {
            tape.nodes.push(Node { operands, bound });
            Self { value, node: tape.nodes.len() - 1 }
        })
    }

    /// A number that depends on no other.
    pub(crate) fn constant(value: f64) -> Self {
        Self::new(value, [(0, 0.0); 2], f64::INFINITY)
    }

    fn unary(self, value: f64, derivative: f64) -> Self {
        Self::new(value, [(self.node, derivative), (0, 0.0)], f64::INFINITY)
    }

    fn binary(self, other: Self, value: f64, derivatives: [f64; 2]) -> Self {
        Self::new(value, [(self.node, derivatives[0]), (other.node, derivatives[1])], f64::INFINITY)
    }

    /// The same value; the gradient at it is clipped to ±`bound`.
    pub(crate) fn clip_gradient(self, bound: f64) -> Self {
        Self::new(self.value, [(self.node, 1.0), (0, 0.0)], bound)
    }

    pub(crate) fn exp(self) -> Self {
        self.unary(self.value.exp(), self.value.exp())
    }

    pub(crate) fn ln(self) -> Self {
        self.unary(self.value.ln(), 1.0 / self.value)
    }

    pub(crate) fn sqrt(self) -> Self {
        self.unary(self.value.sqrt(), 0.5 / self.value.sqrt())
    }

    /// Errors grow without bound towards a pole: beyond ±π/4 it counts as a kink.
    pub(crate) fn tan(self) -> Self {
        pass_kink((self.value.cos().abs() - FRAC_1_SQRT_2).max(0.0));
        self.unary(self.value.sin() / self.value.cos(), 1.0 / self.value.cos().powi(2))
    }

    pub(crate) fn is_above(self, kink: f64) -> bool {
        pass_kink(self.value - kink);
        self.value > kink
    }

    /// min(`high`, max(`low`, x)), without a gradient where a bound holds.
    pub(crate) fn clamp(self, low: f64, high: f64) -> Self {
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
        self.binary(other, self.value + other.value, [1.0, 1.0])
    }
}

impl Sub for Number {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        self.binary(other, self.value - other.value, [1.0, -1.0])
    }
}

impl Mul for Number {
    type Output = Self;
    fn mul(self, other: Self) -> Self {
        self.binary(other, self.value * other.value, [other.value, self.value])
    }
}

impl Div for Number {
    type Output = Self;
    fn div(self, other: Self) -> Self {
        let quotient = self.value / other.value;
        self.binary(other, quotient, [1.0 / other.value, -quotient / other.value])
    }
}

impl Mul<Number> for f64 {
    type Output = Number;
    fn mul(self, other: Number) -> Number {
        other.unary(self * other.value, self)
    }
}

impl Add<Number> for f64 {
    type Output = Number;
    fn add(self, other: Number) -> Number {
        other.unary(self + other.value, 1.0)
    }
}
