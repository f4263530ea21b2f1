"""Kernels of a GPU program are counted from its HLO."""

# ruff: noqa: E501 (lines of HLO)

import hlo_kernels

HLO = """HloModule jit_program, is_scheduled=true

%fused_slice (param_0.1: f32[1000]) -> bf16[10] {
  %param_0.1 = f32[1000]{0} parameter(0)
  %slice.1 = f32[10]{0} slice(%param_0.1), slice={[0:10]}
  ROOT %convert.1 = bf16[10]{0} convert(%slice.1)
}

%fused_norm (param_0.2: bf16[4,10], param_1.2: f32[10]) -> bf16[4,10] {
  %param_0.2 = bf16[4,10]{1,0} parameter(0)
  %param_1.2 = f32[10]{0} parameter(1)
  ROOT %multiply.1 = bf16[4,10]{1,0} multiply(%param_0.2, %param_1.2)
}

ENTRY %main (p: f32[1000], x: bf16[4,10], s: f32[10]) -> bf16[4,10] {
  %p = f32[1000]{0} parameter(0)
  %x = bf16[4,10]{1,0} parameter(1)
  %s = f32[10]{0} parameter(2)
  %loop_slice_fusion = bf16[10]{0} fusion(%p), kind=kLoop, calls=%fused_slice
  %conv = (bf16[4,10]{1,0}, u8[0]{0}) custom-call(%x, %loop_slice_fusion), custom_call_target="__cudnn$convForward", metadata={op_name="jit(program)/jvp(ResNet)/conv1/conv_general_dilated"}
  %get-tuple-element = bf16[4,10]{1,0} get-tuple-element(%conv), index=0
  %norm = bf16[4,10]{1,0} fusion(%get-tuple-element, %s), kind=kLoop, calls=%fused_norm, metadata={op_name="jit(program)/jvp(ResNet)/layer2_0/downsample_bn/mul"}
  %back = bf16[4,10]{1,0} fusion(%norm, %s), kind=kLoop, calls=%fused_norm, metadata={op_name="jit(program)/transpose(jvp(ResNet))/bn1/mul"}
  %adam = bf16[4,10]{1,0} fusion(%back, %s), kind=kLoop, calls=%fused_norm, metadata={op_name="jit(program)/optimizer/mul"}
  ROOT %copy.1 = bf16[4,10]{1,0} copy(%adam)
}
"""


def test_kernels_are_grouped_by_what_they_do():
  found = hlo_kernels.count(HLO)
  assert {group: count for group, count in found.items() if count} == {
    "cast": 1,
    "convolution": 1,
    "batch_norm_forward": 1,
    "batch_norm_backward": 1,
    "optimizer": 1,
    "copy": 1,
  }


def test_of_a_sliced_operand_the_slice_counts():
  maps, vector = 80, 40
  slices = 40 + 20
  convolution = 20 + 2 * maps
  elementwise = 3 * (2 * maps + vector)
  copy = 2 * maps
  total = slices + convolution + elementwise + copy
  assert hlo_kernels.bytes_moved(HLO) == total


def test_a_graph_is_one_launch():
  thunks = """000: kCommandBuffer [source]
    001: kCustomKernel [source] loop_add_fusion
    002: kCopy [source]
024: kConvolution [prev=000]
025: kCustomKernel [source] loop_add_fusion_1
"""
  assert hlo_kernels.launches(thunks) == {
    "cuda_graphs_used": 1,
    "host_launches": 3,
  }
