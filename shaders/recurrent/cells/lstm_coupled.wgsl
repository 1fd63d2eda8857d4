// The gate blocks of a long short-term memory whose input and forget gates are coupled, f = 1 - i: i, g, o.

const GATES: u32 = 3u;
const COUPLED: bool = true;
