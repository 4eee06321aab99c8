"""Pipeline classes of diffusers 0.42, without their last word Pipeline: which may be teachers, and why others not."""

DRIVEN = """
    AuraFlow BriaFibo2 BriaFibo Bria Chroma CogView3Plus CogView4 Cosmos2TextToImage DreamLite ErnieImage Flux2Klein
    Flux2 Flux GlmImage HiDreamImage HunyuanDiTPAG HunyuanDiT HunyuanImage IF Ideogram4 Kandinsky3 Kandinsky5T2I
    KandinskyCombined Kandinsky KandinskyV22Combined KandinskyV22 KolorsPAG Kolors Krea2 LDMTextToImage LongCatImage
    Lumina2 Lumina NucleusMoEImage OmniGen OvisImage PRX PRXPixel PixArtAlpha PixArtSigmaPAG PixArtSigma QwenImage21
    QwenImage SanaPAG Sana StableDiffusion3PAG StableDiffusion3 StableDiffusionPAG StableDiffusion
    StableDiffusionXLPAG StableDiffusionXL StableUnCLIP ZImage Allegro AnimateDiffPAG AnimateDiff AnimateDiffSDXL
    AnyFlowFAR CogVideoX Cosmos2_5_PredictBase Cosmos3Omni CosmosTextToWorld EasyAnimate Helios HunyuanVideo15
    HunyuanVideo Kandinsky5T2V Kandinsky6TI2VA LTX2DFR LTX2 LTX Latte Mochi MotifVideo SanaVideo
    SkyReelsV2DiffusionForcing SkyReelsV2 Wan AceStep AudioLDM2 LongCatAudioDiT StableAudio3 StableAudio DDIM DDPM
    RFD4Proteina DiT
"""  # by prompts, class labels or noise

REFUSED = {  # what the sentence says after the name of the class
    "needs an input image": """
        ChronoEdit CogVideoXImageToVideo HunyuanSkyreelsImageToVideo HunyuanVideo15ImageToVideo
        HunyuanVideoFramepack HunyuanVideoImageToVideo Kandinsky5I2V LTX2ImageToVideo LTXI2VLongMultiPrompt
        LTXImageToVideo MotifVideoImage2Video SanaImageToVideo SanaWM SkyReelsV2DiffusionForcingImageToVideo
        SkyReelsV2ImageToVideo StableVideoDiffusion WanImageToVideo ChromaImg2Img FluxImg2Img IFImg2Img
        Kandinsky3Img2Img KandinskyImg2ImgCombined KandinskyImg2Img KandinskyV22Img2ImgCombined
        KandinskyV22Img2Img KolorsImg2Img QwenImageImg2Img StableDiffusion3Img2Img StableDiffusion3PAGImg2Img
        StableDiffusionDepth2Img StableDiffusionImg2Img StableDiffusionPAGImg2Img StableDiffusionXLImg2Img
        StableDiffusionXLPAGImg2Img ZImageImg2Img StableDiffusionImageVariation StableUnCLIPImg2Img
        FluxKontext JoyImageEdit JoyImageEditPlus Kandinsky5I2I LEditsPPPipelineStableDiffusion
        LEditsPPPipelineStableDiffusionXL LongCatImageEdit QwenImageEdit QwenImageEditPlus QwenImageLayered
        StableDiffusionInstructPix2Pix StableDiffusionXLInstructPix2Pix VisualClozeGeneration VisualCloze
        ZImageOmni HunyuanImageRefiner IFImg2ImgSuperResolution IFSuperResolution LDMSuperResolution
        StableDiffusionLatentUpscale StableDiffusionUpscale MarigoldDepth MarigoldIntrinsics MarigoldNormals
        LatentConsistencyModelImg2Img SanaSprintImg2Img AltDiffusionImg2Img BlipDiffusion I2VGenXL PIA
        StableDiffusionPix2PixZero
    """,
    "needs an image and a mask": """
        WanVACE ChromaInpaint Flux2KleinInpaint FluxFill FluxInpaint FluxKontextInpaint IFInpainting
        KandinskyInpaintCombined KandinskyInpaint KandinskyV22InpaintCombined KandinskyV22Inpaint
        QwenImageEditInpaint QwenImageInpaint StableDiffusion3Inpaint StableDiffusionInpaint
        StableDiffusionPAGInpaint StableDiffusionXLInpaint StableDiffusionXLPAGInpaint ZImageInpaint
        BriaFiboEdit FluxControlInpaint FluxControlNetInpaint QwenImageControlNetInpaint
        StableDiffusion3ControlNetInpainting StableDiffusionControlNetInpaint
        StableDiffusionControlNetPAGInpaint StableDiffusionXLControlNetInpaint
        StableDiffusionXLControlNetUnionInpaint ZImageControlNetInpaint IFInpaintingSuperResolution
        PaintByExample RePaint StableDiffusionDiffEdit StableDiffusionInpaintPipelineLegacy
    """,
    "needs a control image": """
        AnimateDiffControlNet AnimateDiffSparseControlNet AnimateDiffVideoToVideoControlNet
        CogVideoXFunControl CogView4Control Cosmos2_5_Transfer EasyAnimateControl FluxControlImg2Img
        FluxControlNetImg2Img FluxControlNet FluxControl HunyuanDiTControlNet KandinskyV22ControlnetImg2Img
        KandinskyV22Controlnet QwenImageControlNet SanaControlNet StableDiffusion3ControlNet
        StableDiffusionAdapter StableDiffusionControlNetImg2Img StableDiffusionControlNetPAG
        StableDiffusionControlNet StableDiffusionXLAdapter StableDiffusionXLControlNetImg2Img
        StableDiffusionXLControlNetPAGImg2Img StableDiffusionXLControlNetPAG StableDiffusionXLControlNet
        StableDiffusionXLControlNetUnionImg2Img StableDiffusionXLControlNetUnion ZImageControlNet
        BlipDiffusionControlNet StableDiffusionControlNetXS StableDiffusionXLControlNetXS
    """,
    "has no denoiser called transformer or unet": """
        ShapEImg2Img ShapE DiffusionGemma LLaDA2 LTX2LatentUpsample LTXLatentUpsample StableCascadeCombined
        UnCLIPImageVariation UnCLIP VersatileDiffusionDualGuided VersatileDiffusionImageVariation
        VersatileDiffusion VersatileDiffusionTextToImage WuerstchenCombined
    """,
    "needs an input video": """
        AnimateDiffVideoToVideo CogVideoXVideoToVideo LucyEdit SkyReelsV2DiffusionForcingVideoToVideo
        WanVideoToVideo Kandinsky6SR VideoToVideoSD
    """,
    "is the prior stage of a pipeline": """
        KandinskyPrior KandinskyV22PriorEmb2Emb KandinskyV22Prior FluxPriorRedux StableCascadePrior
        WuerstchenPrior
    """,
    "needs an input image or video": """
        Cosmos2VideoToWorld CosmosVideoToWorld LTXCondition WanAnimate
    """,
    "needs images or a video to start from": """
        LTX2Condition LTX2InContext LTX2HDR LTX2DFRTemporalRefine
    """,
    "samples discrete tokens": """
        AmusedImg2Img AmusedInpaint Amused VQDiffusion
    """,
    "is the decoder stage of a pipeline": """
        LTX2VideoDiffusionDecode StableCascadeDecoder WuerstchenDecoder
    """,
    "needs a video and a mask": """
        EasyAnimateInpaint
    """,
    "needs an input sound": """
        StableAudio3AudioToAudio
    """,
    "needs a sound and a mask": """
        StableAudio3Inpaint
    """,
}
