//! Limits on the functions of a user's WGSL: loops with a constant number of iterations, no more work than a
//! cell's equations need, and no access to memory, barriers or functions of the shader around them.

use std::collections::HashMap;

use wgpu::naga::valid::ModuleInfo;
use wgpu::naga::{
    BinaryOperator, Block, Expression, Function, Handle, Literal, LocalVariable, Module, Statement,
};

use super::{Rules, line_of};

/// The most loop iterations of one call, including nested loops and called functions: three loops over eight
/// gates. Mesa's software driver ends an invocation's loops after 65,536 iterations in total, and
/// `ITERATIONS` in `src/ops/recurrent/gpu/strategy.rs` leaves at least 30 for a cell.
const MAX_ITERATIONS: usize = 24;
/// The most expressions that one call evaluates: a compiler copies a function to each place where it is
/// called.
const MAX_EXPRESSIONS: usize = 1 << 13;
/// The most bytes of one value or variable, which is held in registers.
const MAX_VALUE_BYTES: u32 = 1 << 10;

/// The work of one call of a function.
#[derive(Clone, Copy, Default)]
struct KernelWork {
    iterations: usize,
    expressions: usize,
}

impl KernelWork {
    fn add(&mut self, other: Self) {
        self.iterations = self.iterations.saturating_add(other.iterations);
        self.expressions = self.expressions.saturating_add(other.expressions);
    }

    fn times(self, count: usize) -> Self {
        Self {
            iterations: self.iterations.saturating_mul(count),
            expressions: self.expressions.saturating_mul(count),
        }
    }
}

/// Checks that every function declared in `own`, the start of the source of `module`, is within the limits.
pub(super) fn expect_bounded(
    module: &Module,
    info: &ModuleInfo,
    own: &str,
    rules: &Rules,
) -> Result<(), String> {
    let place = |handle| module.functions.get_span(handle).to_range().map_or(0, |range| range.start);
    let is_own = |handle| place(handle) < own.len();
    if module.entry_points.len() > 1 {
        return Err("it declares an entry point, and the layer around the cell has the only one".to_owned());
    }
    let others = module.functions.iter().filter(|&(handle, _)| !is_own(handle)).map(|(_, function)| function);
    let mains = module.entry_points.iter().map(|entry| &entry.function);
    for function in others.chain(mains) {
        let mut calls = Vec::new();
        called(&function.body, &mut calls);
        for callee in calls.into_iter().filter(|&callee| is_own(callee)) {
            let name = name(&module.functions[callee]);
            if !rules.provides.contains(&name) {
                let line = line_of(own, place(callee));
                return Err(format!(
                    "line {line}: `{name}` replaces a function of WGSL that the layer around the cell calls: choose another name"
                ));
            }
        }
    }
    // A function is checked after those that it calls.
    let mut known = HashMap::new();
    for (handle, function) in module.functions.iter().filter(|&(handle, _)| is_own(handle)) {
        let line = line_of(own, place(handle));
        let named = |message: String| format!("line {line}: the function `{}` {message}", name(function));
        let checked = Checked { module, function, known: &known, is_own: &is_own, rules };
        checked.expect_values_within_limits(&info[handle]).map_err(named)?;
        let work = checked.block(&function.body).map_err(named)?;
        if work.iterations > MAX_ITERATIONS {
            let message = format!(
                "takes {} iterations of its loops in a call, and may take at most {MAX_ITERATIONS}",
                work.iterations
            );
            return Err(named(message));
        }
        if work.expressions > MAX_EXPRESSIONS {
            let message = format!(
                "computes {} expressions in a call, with those of the functions that it calls, and may \
                 compute at most {MAX_EXPRESSIONS}",
                work.expressions
            );
            return Err(named(message));
        }
        known.insert(handle, work);
    }
    Ok(())
}

fn name(function: &Function) -> &str {
    function.name.as_deref().unwrap_or_default()
}

/// All functions that a block calls.
fn called(block: &Block, calls: &mut Vec<Handle<Function>>) {
    for statement in block {
        if let Statement::Call { function, .. } = statement {
            calls.push(*function);
        }
        inner(statement).into_iter().for_each(|block| called(block, calls));
    }
}

/// The blocks of a statement.
fn inner(statement: &Statement) -> Vec<&Block> {
    match statement {
        Statement::Block(block) => vec![block],
        Statement::If { accept, reject, .. } => vec![accept, reject],
        Statement::Switch { cases, .. } => cases.iter().map(|case| &case.body).collect(),
        Statement::Loop { body, continuing, .. } => vec![body, continuing],
        _ => Vec::new(),
    }
}

/// One of the user's functions, and the work of the functions that it calls.
struct Checked<'a> {
    module: &'a Module,
    function: &'a Function,
    known: &'a HashMap<Handle<Function>, KernelWork>,
    is_own: &'a dyn Fn(Handle<Function>) -> bool,
    rules: &'a Rules,
}

impl Checked<'_> {
    fn expect_values_within_limits(&self, info: &wgpu::naga::valid::FunctionInfo) -> Result<(), String> {
        let context = self.module.to_ctx();
        let expect = |bytes: u32| match bytes <= MAX_VALUE_BYTES {
            true => Ok(()),
            false => Err(format!("has a value of {bytes} bytes, and values have at most {MAX_VALUE_BYTES}")),
        };
        for (_, variable) in self.function.local_variables.iter() {
            expect(self.module.types[variable.ty].inner.size(context))?;
        }
        for (handle, expression) in self.function.expressions.iter() {
            if let Expression::GlobalVariable(variable) = expression {
                let name = self.module.global_variables[*variable].name.as_deref().unwrap_or_default();
                return Err(format!(
                    "uses `{name}`, a variable of the layer around the cell: a cell computes from its arguments"
                ));
            }
            expect(info[handle].ty.inner_with(&self.module.types).size(context))?;
        }
        Ok(())
    }

    /// The work of a block.
    fn block(&self, block: &Block) -> Result<KernelWork, String> {
        let mut work = KernelWork::default();
        let mut before = None;
        for statement in block {
            work.add(self.statement(statement, before)?);
            before = Some(statement);
        }
        Ok(work)
    }

    fn statement(&self, statement: &Statement, before: Option<&Statement>) -> Result<KernelWork, String> {
        let mut work = KernelWork::default();
        match statement {
            Statement::Emit(range) => work.expressions = range.clone().count(),
            Statement::Call { function, .. } => work = self.call(*function)?,
            Statement::ControlBarrier(_) | Statement::MemoryBarrier(_) => {
                return Err("has a barrier: invocations of a cell share nothing".to_owned());
            }
            Statement::Loop { body, continuing, break_if: None } => {
                let Some(count) = self.iterations(body, continuing, before) else {
                    return Err(format!(
                        "has a loop that is not a `for` over a constant number of iterations, at most {MAX_ITERATIONS}, \
                         whose counter its body leaves alone, as in `for (var i = 0u; i < GATES; i++)`"
                    ));
                };
                let mut one = self.block(body)?;
                one.add(self.block(continuing)?);
                one.iterations = one.iterations.saturating_add(1);
                work = one.times(count);
            }
            Statement::Loop { .. } => return Err("has a `loop`: write a `for` instead".to_owned()),
            other => {
                for block in inner(other) {
                    work.add(self.block(block)?);
                }
            }
        }
        Ok(work)
    }

    fn call(&self, callee: Handle<Function>) -> Result<KernelWork, String> {
        if let Some(work) = self.known.get(&callee) {
            return Ok(*work);
        }
        let function = &self.module.functions[callee];
        let name = name(function);
        if (self.is_own)(callee) || !self.rules.offers.contains(&name) {
            let offers = self.rules.offers.join("`, `");
            return Err(format!("calls `{name}`, which is not a cell's to call; it may call `{offers}`"));
        }
        Ok(KernelWork { iterations: 0, expressions: function.expressions.len() })
    }

    /// The number of iterations of a `for` loop whose counter starts from a constant, changes by a constant,
    /// is compared with a constant, and is not written elsewhere. None for other loops, and for more than
    /// [`MAX_ITERATIONS`].
    fn iterations(&self, body: &Block, continuing: &Block, before: Option<&Statement>) -> Option<usize> {
        let (counter, op, end) = self.condition(body)?;
        // The counter must change in one place, in every iteration, by a constant.
        let [value] = self.stores(continuing, counter)[..] else { return None };
        let is_change = |statement: &Statement| match statement {
            Statement::Store { pointer, .. } => self.variable(*pointer) == Some(counter),
            _ => false,
        };
        if !continuing.iter().any(is_change) {
            return None;
        }
        if !self.stores(body, counter).is_empty() || self.is_passed(&self.function.body, counter) {
            return None;
        }
        let &Expression::Binary { op: change, left, right } = &self.function.expressions[value] else {
            return None;
        };
        let changes = self.loaded(left) == Some(counter)
            && [value, left].into_iter().all(|part| emits(continuing, part));
        let step = match change {
            BinaryOperator::Add if changes => self.constant(right)?.0,
            BinaryOperator::Subtract if changes => -self.constant(right)?.0,
            _ => return None,
        };
        let start = match before {
            Some(Statement::Store { pointer, value }) if self.variable(*pointer) == Some(counter) => *value,
            _ if self.stores(&self.function.body, counter).len() == 1 => {
                self.function.local_variables[counter].init?
            }
            _ => return None,
        };
        let (mut value, least) = self.constant(start)?;
        for count in 0..=MAX_ITERATIONS {
            let holds = match op {
                BinaryOperator::Less => value < end,
                BinaryOperator::LessEqual => value <= end,
                BinaryOperator::Greater => value > end,
                BinaryOperator::GreaterEqual => value >= end,
                _ => return None,
            };
            if !holds {
                return Some(count);
            }
            // A counter that wraps around may never reach its end.
            value = Some(value + step).filter(|next| (least..=i32::MAX.into()).contains(next))?;
        }
        None
    }

    /// The counter of a loop whose body begins with `break` unless a comparison with a constant holds.
    fn condition(&self, body: &Block) -> Option<(Handle<LocalVariable>, BinaryOperator, i64)> {
        let first = body.iter().position(|statement| !matches!(statement, Statement::Emit(_)))?;
        let &Statement::If { condition, ref accept, ref reject } = &body[first] else { return None };
        let &Expression::Binary { op, left, right } = &self.function.expressions[condition] else {
            return None;
        };
        let is_new = [condition, left].into_iter().all(|part| emits(body, part));
        let breaks = matches!(reject.first(), Some(Statement::Break)) && accept.is_empty();
        (is_new && breaks).then_some((self.loaded(left)?, op, self.constant(right)?.0))
    }

    /// The variable that an expression points to.
    fn variable(&self, pointer: Handle<Expression>) -> Option<Handle<LocalVariable>> {
        match self.function.expressions[pointer] {
            Expression::LocalVariable(variable) => Some(variable),
            _ => None,
        }
    }

    /// The variable that an expression reads.
    fn loaded(&self, value: Handle<Expression>) -> Option<Handle<LocalVariable>> {
        match self.function.expressions[value] {
            Expression::Load { pointer } => self.variable(pointer),
            _ => None,
        }
    }

    /// The value of a constant, and the least value of its type for a counter.
    fn constant(&self, value: Handle<Expression>) -> Option<(i64, i64)> {
        let expression = match self.function.expressions[value] {
            Expression::Constant(constant) => {
                &self.module.global_expressions[self.module.constants[constant].init]
            }
            ref other => other,
        };
        match *expression {
            Expression::Literal(Literal::U32(value)) => Some((value.into(), 0)),
            Expression::Literal(Literal::I32(value)) => Some((value.into(), i32::MIN.into())),
            _ => None,
        }
    }

    /// The values stored to a variable in a block.
    fn stores(&self, block: &Block, to: Handle<LocalVariable>) -> Vec<Handle<Expression>> {
        let of = |statement: &Statement| match statement {
            Statement::Store { pointer, value } if self.variable(*pointer) == Some(to) => vec![*value],
            other => inner(other).into_iter().flat_map(|block| self.stores(block, to)).collect(),
        };
        block.iter().flat_map(of).collect()
    }

    /// Whether a call in a block has a pointer to the variable as an argument.
    fn is_passed(&self, block: &Block, variable: Handle<LocalVariable>) -> bool {
        block.iter().any(|statement| match statement {
            Statement::Call { arguments, .. } => {
                arguments.iter().any(|&argument| self.variable(argument) == Some(variable))
            }
            other => inner(other).into_iter().any(|block| self.is_passed(block, variable)),
        })
    }
}

/// Whether a block evaluates an expression, outside of nested blocks.
fn emits(block: &Block, expression: Handle<Expression>) -> bool {
    block.iter().any(|statement| match statement {
        Statement::Emit(range) => range.clone().any(|emitted| emitted == expression),
        _ => false,
    })
}
