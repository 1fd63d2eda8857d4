// The page of `scripts/tint`: compiles all shaders, and writes a line for each error and one with counts. The page defines
// `most`, the number of variants per kernel that are compiled to pipelines.

const written = document.querySelector("pre");
const say = line => line.split("\n").forEach(part => written.append(`tint: ${part}\n`));

// Chromium prints the page when it has loaded; an open frame delays that.
const frame = document.body.appendChild(document.createElement("iframe"));
frame.contentDocument.open();

async function module(device, kernel) {
    device.pushErrorScope("validation");
    const module = device.createShaderModule({ label: kernel.name, code: kernel.wgsl });
    const refused = await device.popErrorScope();
    const { messages } = await module.getCompilationInfo();
    for (const { type, lineNum, linePos, message } of messages) {
        say(`${kernel.name}:${lineNum}:${linePos}: ${type}: ${message}`);
        if (lineNum) say(`    ${kernel.wgsl.split("\n")[lineNum - 1].trim()}`);
    }
    if (refused && !messages.some(({ type }) => type === "error")) say(`${kernel.name}: ${refused.message}`);
    return refused || messages.some(({ type }) => type === "error") ? null : module;
}

// Selects the first, the last, and some variants between them.
function sample(variants) {
    if (variants.length <= most) return variants;
    return Array.from({ length: most }, (_, index) =>
        variants[Math.round(index * (variants.length - 1) / (most - 1))]);
}

// How many of the variants are accepted. Of many faults in one kernel the first is enough.
async function pipelines(device, kernel, module, variants) {
    const compiled = variants.map(({ constants }) => device.createComputePipelineAsync({
        label: kernel.name, layout: "auto", compute: { module, entryPoint: "main", constants },
    }));
    const results = await Promise.allSettled(compiled);
    const fault = results.findIndex(({ status }) => status === "rejected");
    if (fault >= 0) say(`${kernel.name} ${JSON.stringify(variants[fault].constants)}: ${results[fault].reason.message}`);
    return results.filter(({ status }) => status === "fulfilled").length;
}

async function compile(kernels) {
    const adapter = await navigator.gpu?.requestAdapter();
    if (!adapter) throw new Error("there is no WebGPU");
    const wanted = [
        "maxStorageBuffersPerShaderStage", "maxComputeWorkgroupStorageSize",
        "maxComputeInvocationsPerWorkgroup", "maxComputeWorkgroupSizeX",
    ];
    const requiredLimits = Object.fromEntries(wanted.map(name => [name, adapter.limits[name]]));
    const device = await adapter.requestDevice({ requiredLimits });
    device.lost.then(({ message }) => say(`the device was lost: ${message}`));
    const { maxStorageBuffersPerShaderStage, maxComputeWorkgroupStorageSize } = device.limits;

    let modules = 0, accepted = 0, expected = 0, fitting = 0, tooLarge = 0;
    for (const kernel of kernels) {
        const fit = kernel.variants.filter(({ workgroup_bytes }) =>
            kernel.storage_buffers <= maxStorageBuffersPerShaderStage
                && workgroup_bytes <= maxComputeWorkgroupStorageSize);
        const variants = sample(fit);
        expected += variants.length;
        fitting += fit.length;
        tooLarge += kernel.variants.length - fit.length;
        const compiled = await module(device, kernel);
        if (!compiled) continue;
        modules += 1;
        accepted += await pipelines(device, kernel, compiled, variants);
    }
    say(`accepted ${modules} ${kernels.length} ${accepted} ${expected} ${fitting} ${tooLarge}`);
}

compile(JSON.parse(document.querySelector("script").textContent))
    .catch(error => say(String(error)))
    .finally(() => {
        frame.contentDocument.close();
        frame.remove();
    });
