//! smoke
mod golden;
use refrain::nn::*;
use refrain::*;
fn train(device: &Device) -> Vec<f32> {
    let mut model = Model::new(1);
    model.add("embedding", Embedding::new(7, 5)).unwrap();
    model.add("rnn", Rnn::new(Cell::tanh(), 5, 33).layers(2)).unwrap();
    model.add("head", Linear::new(33, 7)).unwrap();
    let mut p = model.initialize(device).unwrap();
    let mut adam = optim::Adam::new(&p, optim::AdamConfig::new(0.01)).unwrap();
    let w = data::Windows::new((0..500u32).map(|i| (i * i / 3) % 7).collect(), 3, 9).unwrap();
    let mut state = model.zero_state(device, 3).unwrap();
    let mut out = vec![];
    for i in 0..20 {
        let (x, t) = w.window(i).to_device(device).unwrap();
        let (y, next, trace) = model.forward(&p, &x, &state).unwrap();
        let (loss, d) = loss::cross_entropy(&y, &t).unwrap();
        let mut g = p.zero_gradients().unwrap();
        trace.backward(&d, &mut g).unwrap();
        g.clip_norm(1.0).unwrap();
        adam.step(&mut p, &g).unwrap();
        state = next;
        out.push(loss.read().unwrap());
    }
    out
}
#[test]
fn smoke() {
    println!("{:?}", Device::list());
    let a = train(&Device::cpu());
    let b = train(&Device::reference());
    println!("{a:?}\n{b:?}");
    for (o, name) in [ParameterPath::Fastest, ParameterPath::Uniforms].into_iter().zip(["llvmpipe"; 2]) {
        let g = Device::gpu_with(name, &GpuOptions { parameters: o, ..Default::default() }).unwrap();
        let c = train(&g);
        println!("{c:?} {:?}", g.counters());
    }
}
