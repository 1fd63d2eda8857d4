// The gate blocks of a long short-term memory: i, f, g, o.

const GATES: u32 = 4u;
const COUPLED: bool = false;
