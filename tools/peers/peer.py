#!/usr/bin/env python3
"""One peer in a process of its own (tools/peers/compare.py starts it): loads the model, evaluates it on the given tensors, prints the
seconds of each evaluation as `sumi run --repeat` does, writes the last output as raw f32.

    peer.py export MODEL ONNX        the UNet and the decoder of a folder in diffusers' layout as ONNX in f32, all sizes in one file
    peer.py int8 ONNX                both with int8 weights as OpenVINO's IR (nncf.compress_weights: no data needed)
    peer.py run PEER WHAT MODEL ONNX IN OUT THREADS TIMES
    peer.py version PEER

PEER: torch (as it comes), torch-last (channels last), torch-bf16 (that, weights and activations in bfloat16), torch-compile (channels
last and torch.compile), onnx, openvino, openvino-bf16 (INFERENCE_PRECISION_HINT), openvino-int8.
WHAT: unet, vae. Weights are stored as f16 and used as f32 by all but the two of bfloat16, as sumi does.
"""
import os
import shutil
import sys
import time

INPUTS = {"unet": ["sample", "timestep", "encoder_hidden_states"], "vae": ["latents"]}


def module(what, folder):
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel

    class Unet(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.m = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", torch_dtype=torch.float32)

        def forward(self, sample, timestep, encoder_hidden_states):
            return self.m(sample, timestep, encoder_hidden_states, return_dict=False)[0]

    class Decoder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.m = AutoencoderKL.from_pretrained(folder, subfolder="vae", torch_dtype=torch.float32)

        def forward(self, latents):
            return self.m.decode(latents, return_dict=False)[0]

    return (Unet() if what == "unet" else Decoder()).eval().requires_grad_(False)


def export(folder, onnx_folder):
    """The exporter by tracing: the one by torch.export took more than five minutes over a toy of this UNet, and fixes the sizes."""
    import onnx
    import torch

    free = {"sample": {0: "n", 2: "h", 3: "w"}, "timestep": {0: "n"}, "encoder_hidden_states": {0: "n"}, "latents": {0: "n", 2: "h", 3: "w"}}
    for what, names in INPUTS.items():
        m = module(what, folder)
        x = torch.randn(1, 4, 16, 24)
        args = (x, torch.full((1,), 500.0), torch.randn(1, 77, m.m.config.cross_attention_dim)) if what == "unet" else (x,)
        to = os.path.join(onnx_folder, what)
        for stale in (to, to + ".part"):
            shutil.rmtree(stale, ignore_errors=True)
        os.makedirs(to + ".part")
        with torch.no_grad():
            torch.onnx.export(m, args, f"{to}.part/traced.onnx", dynamo=False, opset_version=17, input_names=names, output_names=["out"],
                              dynamic_axes={k: free[k] for k in names})
        del m
        os.makedirs(to)
        whole = onnx.load(f"{to}.part/traced.onnx")
        onnx.save(whole, f"{to}/model.onnx", save_as_external_data=True, location="weights.bin")
        del whole
        shutil.rmtree(to + ".part")


def int8(onnx_folder):
    import nncf
    import openvino as ov

    for what in INPUTS:
        m = nncf.compress_weights(ov.Core().read_model(f"{onnx_folder}/{what}/model.onnx"), mode=nncf.CompressWeightsMode.INT8_ASYM)
        ov.save_model(m, f"{onnx_folder}/{what}/int8.xml", compress_to_fp16=False)


def torch_runner(peer, what, folder, inputs, threads):
    import torch

    torch.set_num_threads(threads)
    m = module(what, folder)
    x = [torch.from_numpy(a) for a in inputs]
    if peer != "torch":
        m = m.to(memory_format=torch.channels_last)
        x[0] = x[0].to(memory_format=torch.channels_last)
    if peer == "torch-bf16":
        m, x = m.to(torch.bfloat16), [a.to(torch.bfloat16) for a in x]
    if peer == "torch-compile":
        m = torch.compile(m)
    no_grad = torch.inference_mode() if peer != "torch-compile" else torch.no_grad()

    def run():
        with no_grad:
            return m(*x)

    return run, lambda y: y.float().contiguous().numpy()


def onnx_runner(peer, what, folder, inputs, threads):
    import onnxruntime as ort

    o = ort.SessionOptions()
    o.intra_op_num_threads, o.inter_op_num_threads = threads, 1
    o.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    for name, size in zip("nhw", inputs[0].shape[:1] + inputs[0].shape[2:]):
        o.add_free_dimension_override_by_name(name, size)
    s = ort.InferenceSession(f"{folder}/{what}/model.onnx", o, providers=["CPUExecutionProvider"])
    feed = dict(zip(INPUTS[what], inputs))
    return lambda: s.run(None, feed)[0], lambda y: y


def openvino_runner(peer, what, folder, inputs, threads):
    import openvino as ov

    core = ov.Core()
    m = core.read_model(f"{folder}/{what}/" + ("int8.xml" if peer.endswith("int8") else "model.onnx"))
    m.reshape({k: list(a.shape) for k, a in zip(INPUTS[what], inputs)})
    c = core.compile_model(m, "CPU", {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "bf16" if peer == "openvino-bf16" else "f32", "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1})
    request = c.create_infer_request()
    return lambda: request.infer(dict(zip(INPUTS[what], inputs)))[0], lambda y: y


def run(peer, what, model, onnx_folder, path, out, threads, times):
    from safetensors.numpy import load_file

    tensors = load_file(path)
    inputs = [tensors[k] for k in INPUTS[what]]
    kind = peer.split("-")[0]
    runner = {"torch": torch_runner, "onnx": onnx_runner, "openvino": openvino_runner}[kind]
    step, values = runner(peer, what, model if kind == "torch" else onnx_folder, inputs, int(threads))
    for i in range(int(times)):
        t = time.perf_counter()
        y = step()
        print(f"evaluation {i + 1}: {time.perf_counter() - t:.6f} s", flush=True)
    values(y).astype("<f4").tofile(out)


def version(peer):
    from importlib.metadata import version as v

    names = {"torch": ["torch", "diffusers"], "onnx": ["onnxruntime"], "openvino": ["openvino"]}[peer.split("-")[0]]
    print(", ".join(f"{n} {v(n)}" for n in names + (["nncf"] if peer.endswith("int8") else [])))


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] not in ("export", "int8", "run", "version"):
        sys.exit(__doc__)
    globals()[sys.argv[1]](*sys.argv[2:])
